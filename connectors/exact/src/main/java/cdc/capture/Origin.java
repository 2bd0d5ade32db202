package cdc.capture;

import io.debezium.connector.postgresql.connection.ReplicationConnection;
import io.debezium.jdbc.JdbcConnection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;

/**
 * Which server, and which timeline of it, sends a stream: {@code <system identifier>/<timeline>}.
 *
 * <p>A promoted standby keeps the system identifier and begins a new timeline, whose LSNs go back to
 * where it stopped following. Only the session that streams can tell on which one it is: the address
 * may lead elsewhere a moment later. A server never changes its timeline while a session streams.
 */
final class Origin {

    /** The header of every BEGIN that carries it. */
    static final String HEADER = "cdc.origin";

    /** How a connection is asked that is about to stream. */
    interface Question {
        String ask(ReplicationConnection connection) throws SQLException;
    }

    private Origin() {
    }

    /** Ask over the connection that will stream; it is kept open from here on. */
    static String of(ReplicationConnection replication) throws SQLException {
        try (Statement statement = ((JdbcConnection) replication).connection(false).createStatement();
                ResultSet found = statement.executeQuery("IDENTIFY_SYSTEM")) {
            if (!found.next()) {
                throw new SQLException("IDENTIFY_SYSTEM returned nothing");
            }
            return found.getString("systemid") + "/" + found.getString("timeline");
        }
    }
}
