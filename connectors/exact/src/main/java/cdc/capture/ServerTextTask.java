package cdc.capture;

import io.debezium.config.Configuration;
import io.debezium.connector.postgresql.PgOid;
import io.debezium.connector.postgresql.PostgresConnectorConfig;
import io.debezium.connector.postgresql.PostgresConnectorConfig.AutoCreateMode;
import io.debezium.connector.postgresql.PostgresConnectorTask;
import io.debezium.connector.postgresql.PostgresSchema;
import io.debezium.connector.postgresql.PostgresType;
import io.debezium.connector.postgresql.TypeRegistry;
import io.debezium.connector.postgresql.connection.PostgresConnection;
import io.debezium.connector.postgresql.connection.ReplicationConnection;
import java.sql.SQLException;
import java.time.Duration;

/**
 * Debezium's task, whose decoder takes every value for text.
 *
 * <p>pgoutput sends values as the type's output function prints them. Debezium parses many of them
 * into Java objects, which lose the offset of timetz, take an infinite interval for an empty one and
 * stop the stream at an interval of 2^31 hours. Told that a column is text, it hands over the string
 * it was sent.
 */
final class ServerTextTask extends PostgresConnectorTask {

    private volatile Whole stream;

    /** The stream that is read now: Debezium opens another one, within this task, after an error. */
    Whole stream() {
        return stream;
    }

    // The readings of these settings that Debezium does not deprecate are closed to other packages.
    @SuppressWarnings("deprecation")
    @Override
    protected ReplicationConnection buildReplicationConnection(
            PostgresConnection connection, PostgresSchema schema, PostgresConnectorConfig config) throws SQLException {
        SessionSettings.require(config);
        EverythingIsText types = new EverythingIsText(connection);
        Proof.require(types);
        // As Debezium's own method, but for the type registry.
        Configuration settings = config.getConfig();
        stream = new Whole(DistinctNames.in(ReplicationConnection.builder(config)
                .withSlot(config.slotName())
                .withPublication(config.publicationName())
                .withTableFilter(config.getTableFilters())
                .withPublicationAutocreateMode(
                        AutoCreateMode.parse(settings.getString(PostgresConnectorConfig.PUBLICATION_AUTOCREATE_MODE)))
                .withPlugin(config.plugin())
                .dropSlotOnClose(settings.getBoolean(PostgresConnectorConfig.DROP_SLOT_ON_STOP))
                .createFailOverSlot(settings.getBoolean(PostgresConnectorConfig.CREATE_FAIL_OVER_SLOT))
                .streamParams(settings.getString(PostgresConnectorConfig.STREAM_PARAMS))
                .statusUpdateInterval(Duration.ofMillis(
                        settings.getLong(PostgresConnectorConfig.STATUS_UPDATE_INTERVAL_MS)))
                .withTypeRegistry(types)
                .withSchema(schema)
                .jdbcMetadataConnection(connection)
                .build(), schema, config.getTableFilters().dataCollectionFilter()), Origin::of, () -> confirmed(connection, config.slotName()));
        return stream.connection();
    }

    private static long confirmed(PostgresConnection connection, String slot) throws SQLException {
        return connection.prepareQueryAndMap(
                "SELECT (confirmed_flush_lsn - '0/0'::pg_catalog.pg_lsn)::bigint"
                        + " FROM pg_catalog.pg_replication_slots WHERE slot_name = ?",
                statement -> statement.setString(1, slot),
                connection.singleResultMapper(found -> found.getLong(1), "the slot " + slot + " is gone"));
    }

    /**
     * The decoder looks a column's type up by OID to describe the table, and by name to read a
     * value; only the second answer is ours. The converter refuses whatever is not text, so a
     * Debezium that asks otherwise stops instead of converting.
     */
    static final class EverythingIsText extends TypeRegistry {

        EverythingIsText(PostgresConnection connection) {
            super(connection);
        }

        @Override
        public PostgresType get(String schema, String type) {
            return get(PgOid.TEXT);
        }
    }
}
