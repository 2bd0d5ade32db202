package cdc.capture;

import io.debezium.connector.postgresql.PostgresConnectorConfig;
import io.debezium.connector.postgresql.connection.PostgresConnection;
import io.debezium.jdbc.JdbcConfiguration;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.common.config.ConfigException;

/** The server's settings on which the text of a value depends. */
final class SessionSettings {

    private static final Set<String> UTC = Set.of("UTC", "Etc/UTC", "UCT", "Etc/UCT", "GMT", "Etc/GMT", "Zulu",
            "Etc/Zulu", "Universal", "Etc/Universal");
    private static final String BY_ROLE = "ALTER ROLE %s IN DATABASE %s SET %s = '%s'";
    private static final String BY_JVM = "start Kafka Connect's JVM with -Duser.timezone=UTC";

    /** Which values a setting may have, and what to do if it has another. */
    private record Pin(Set<String> accepted, String wanted, String remedy) {
    }

    private static final Map<String, Pin> PINS = pins();

    private SessionSettings() {
    }

    private static Map<String, Pin> pins() {
        Map<String, Pin> pins = new LinkedHashMap<>();
        // The driver sends the JVM's zone when it connects, over whatever the role has.
        pins.put("TimeZone", new Pin(UTC, "UTC", BY_JVM));
        pins.put("DateStyle", new Pin(Set.of("ISO, MDY", "ISO, DMY", "ISO, YMD"), "ISO", BY_ROLE));
        pins.put("IntervalStyle", new Pin(Set.of("postgres"), "postgres", BY_ROLE));
        pins.put("extra_float_digits", new Pin(Set.of("1", "2", "3"), "1", BY_ROLE));
        pins.put("bytea_output", new Pin(Set.of("hex"), "hex", BY_ROLE));
        pins.put("lc_monetary", new Pin(Set.of("C", "POSIX"), "C", BY_ROLE));
        return pins;
    }

    /**
     * Log in as the stream does and look.
     *
     * @throws ConfigException naming each setting that would change values, and the remedy
     */
    static void require(PostgresConnectorConfig config) throws SQLException {
        Map<String, String> found = new LinkedHashMap<>();
        JdbcConfiguration replication = JdbcConfiguration.adapt(config.getJdbcConfig().edit()
                .with("replication", "database")
                .with("preferQueryMode", "simple")
                .build());
        try (PostgresConnection session = new PostgresConnection(replication, "cdc session settings")) {
            for (String name : PINS.keySet()) {
                session.query("SHOW " + name, row -> {
                    if (row.next()) {
                        found.put(name, row.getString(1));
                    }
                });
            }
        }
        List<String> wrong = wrong(found, config.getJdbcConfig().getUser(), config.databaseName());
        if (!wrong.isEmpty()) {
            throw new ConfigException("values would arrive altered: " + String.join("; ", wrong));
        }
    }

    /** One sentence for each setting that is not as it must be. */
    static List<String> wrong(Map<String, String> found, String user, String database) {
        List<String> wrong = new ArrayList<>();
        PINS.forEach((name, pin) -> {
            String value = found.get(name);
            if (value == null || !pin.accepted.contains(value)) {
                wrong.add("the connector's session has " + name + " = " + value + ", it must be " + pin.wanted + ": "
                        + String.format(pin.remedy, user, database, name, pin.wanted));
            }
        });
        return wrong;
    }
}
