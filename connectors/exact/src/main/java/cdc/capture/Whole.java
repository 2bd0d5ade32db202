package cdc.capture;

import io.debezium.connector.postgresql.connection.ReplicationConnection;
import io.debezium.connector.postgresql.connection.ReplicationStream;
import io.debezium.connector.postgresql.connection.WalPositionLocator;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.sql.SQLException;

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

    /** The replication slot as the server has it. */
    interface Slot {

        /** Up to here the server has forgotten what commits: it sends nothing of it, and does not say so. */
        long confirmed() throws SQLException;
    }

    private final ReplicationConnection inner;
    private final Origin.Question question;
    private final Slot slot;
    // Both set by the thread that reads the stream, before it hands on anything of it.
    private volatile long from;
    private volatile String origin;

    Whole(ReplicationConnection inner, Origin.Question question, Slot slot) {
        this.inner = inner;
        this.question = question;
        this.slot = slot;
    }

    ReplicationConnection connection() {
        return (ReplicationConnection) Proxy.newProxyInstance(
                Whole.class.getClassLoader(), new Class<?>[] {ReplicationConnection.class}, this);
    }

    /**
     * The LSN after which every commit is sent: the later of what was asked for and what the slot
     * has. Asked once the stream is open, when nobody else can move the slot.
     */
    long from() {
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
            if (arguments[i] instanceof WalPositionLocator) {
                // One without a position filters nothing.
                arguments[i] = new WalPositionLocator();
            }
        }
        if (method.getName().equals("startStreaming")) {
            origin = question.ask(inner);
        }
        try {
            Object answer = method.invoke(inner, arguments);
            if (answer instanceof ReplicationStream stream) {
                from = Math.max(stream.startLsn().asLong(), slot.confirmed());
            }
            return answer;
        } catch (InvocationTargetException thrown) {
            throw thrown.getCause();
        }
    }
}
