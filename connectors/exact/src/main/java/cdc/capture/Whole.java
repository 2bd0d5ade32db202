package cdc.capture;

import io.debezium.connector.postgresql.connection.Lsn;
import io.debezium.connector.postgresql.connection.ReplicationConnection;
import io.debezium.connector.postgresql.connection.WalPositionLocator;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;

/**
 * A replication connection that hands on every event of every transaction the server sends, and
 * knows from where on, and whose history that is (see {@link Origin}).
 *
 * <p>When it resumes, Debezium searches the row that stands at the stored LSN and drops what comes
 * before it. The end of a commit is where the next record begins: if that is a row of a transaction
 * still open, its rows before would be dropped, and its END would count only the others. With
 * offsets at commits there is nothing to drop: from the stored LSN on, the server sends exactly the
 * transactions that commit after it, whole (PostgreSQL manual, START_REPLICATION).
 */
final class Whole implements InvocationHandler {

    private final ReplicationConnection inner;
    private final Origin.Question question;
    // Both set by the thread that reads the stream, before it hands on anything of it.
    private volatile Long from;
    private volatile String origin;

    Whole(ReplicationConnection inner, Origin.Question question) {
        this.inner = inner;
        this.question = question;
    }

    ReplicationConnection connection() {
        return (ReplicationConnection) Proxy.newProxyInstance(
                Whole.class.getClassLoader(), new Class<?>[] {ReplicationConnection.class}, this);
    }

    /** The LSN after which every commit is sent; null where the slot alone knows. */
    Long from() {
        return from;
    }

    /** Which server and timeline sends this stream. */
    String origin() {
        return origin;
    }

    @Override
    public Object invoke(Object proxy, Method method, Object[] given) throws Throwable {
        Object[] arguments = given == null ? null : given.clone();
        for (int i = 0; arguments != null && i < arguments.length; i++) {
            if (arguments[i] instanceof Lsn lsn) {
                from = lsn.asLong();
            }
            if (arguments[i] instanceof WalPositionLocator) {
                // One without a position filters nothing.
                arguments[i] = new WalPositionLocator();
            }
        }
        if (method.getName().equals("startStreaming")) {
            origin = question.ask(inner);
        }
        try {
            return method.invoke(inner, arguments);
        } catch (InvocationTargetException thrown) {
            throw thrown.getCause();
        }
    }
}
