package cdc.capture;

import io.debezium.connector.postgresql.connection.ReplicationConnection;
import io.debezium.connector.postgresql.connection.WalPositionLocator;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;

/**
 * A replication connection that hands on every event of every transaction the server sends.
 *
 * <p>When it resumes, Debezium searches the row that stands at the stored LSN and drops what comes
 * before it. The end of a commit is where the next record begins: if that is a row of a transaction
 * still open, its rows before would be dropped, and its END would count only the others. With offsets at commits there is nothing
 * to drop: from the stored LSN on, the server sends exactly the transactions that commit after it,
 * whole (PostgreSQL manual, START_REPLICATION).
 */
final class Whole {

    private Whole() {
    }

    static ReplicationConnection transactions(ReplicationConnection inner) {
        return (ReplicationConnection) Proxy.newProxyInstance(
                Whole.class.getClassLoader(), new Class<?>[] {ReplicationConnection.class}, (proxy, method, given) -> {
                    Object[] arguments = given == null ? null : given.clone();
                    for (int i = 0; arguments != null && i < arguments.length; i++) {
                        if (arguments[i] instanceof WalPositionLocator) {
                            // One without a position filters nothing.
                            arguments[i] = new WalPositionLocator();
                        }
                    }
                    try {
                        return method.invoke(inner, arguments);
                    } catch (InvocationTargetException thrown) {
                        throw thrown.getCause();
                    }
                });
    }
}
