package cdc.capture;

import io.debezium.config.Configuration;
import io.debezium.connector.postgresql.Module;
import io.debezium.connector.postgresql.PostgresConnector;
import io.debezium.connector.postgresql.PostgresConnectorConfig;
import io.debezium.connector.postgresql.connection.PostgresConnection;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.config.Config;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.common.config.ConfigValue;
import org.apache.kafka.connect.connector.Task;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.source.ExactlyOnceSupport;

/**
 * Debezium's PostgreSQL connector, with offsets that move only at commits (see {@link ExactTask})
 * and a configuration that cannot lose a value silently (see {@link Profile}).
 */
public final class ExactConnector extends PostgresConnector {

    /** The plugin's own version, by which `cdc connectors apply` knows an old jar. */
    @Override
    public String version() {
        return ExactConnector.class.getPackage().getImplementationVersion();
    }

    @Override
    public Class<? extends Task> taskClass() {
        return ExactTask.class;
    }

    @Override
    public ConfigDef config() {
        return Profile.define(super.config());
    }

    @Override
    public Config validate(Map<String, String> config) {
        Map<String, ConfigValue> values = new LinkedHashMap<>();
        for (ConfigValue value : super.validate(config).configValues()) {
            values.put(value.name(), value);
        }
        // Connect looks every defined key up here, and fails with a NullPointerException otherwise.
        config().names().forEach(name -> values.computeIfAbsent(name,
                key -> new ConfigValue(key, config.get(key), List.of(), new ArrayList<>())));
        Profile.violations(config)
                .forEach((key, message) -> values.computeIfAbsent(key, ConfigValue::new).addErrorMessage(message));
        if (values.values().stream().allMatch(value -> value.errorMessages().isEmpty())) {
            prove(config, values.get(Proof.KEY));
        }
        return new Config(new ArrayList<>(values.values()));
    }

    /** Try the Debezium of this worker; the version for which it is proven is the value recommended. */
    private static void prove(Map<String, String> config, ConfigValue outcome) {
        PostgresConnectorConfig settings = new PostgresConnectorConfig(Configuration.from(config));
        try (PostgresConnection connection = new PostgresConnection(settings.getJdbcConfig(), "cdc proof")) {
            Proof.wrong(new ServerTextTask.EverythingIsText(connection)).forEach(outcome::addErrorMessage);
        } catch (RuntimeException | LinkageError thrown) {
            outcome.addErrorMessage("it could not be tried that values arrive as the server sends them: " + thrown);
        }
        if (outcome.errorMessages().isEmpty()) {
            outcome.recommendedValues(List.of(Module.version()));
        }
    }

    /**
     * A transaction that was cut off comes again from its BEGIN, so records that were already
     * delivered are delivered twice, even with exactly-once workers.
     */
    @Override
    public ExactlyOnceSupport exactlyOnceSupport(Map<String, String> config) {
        return ExactlyOnceSupport.UNSUPPORTED;
    }

    /** Accept only a reset or positions at a commit: any other would cut a transaction in two. */
    @Override
    public boolean alterOffsets(Map<String, String> config, Map<Map<String, ?>, Map<String, ?>> offsets) {
        List<String> refused = new ArrayList<>();
        offsets.forEach((partition, offset) -> {
            if (offset != null && !CommitOffset.isOne(offset)) {
                refused.add(partition + " -> " + offset);
            }
        });
        if (!refused.isEmpty()) {
            throw new ConnectException("these offsets are not at a commit: " + refused + "; give lsn, lsn_proc and"
                    + " lsn_commit the END LSN of one transaction, messageType COMMIT and no transaction_id");
        }
        return true;
    }
}
