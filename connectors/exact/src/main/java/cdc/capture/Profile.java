package cdc.capture;

import java.util.LinkedHashMap;
import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;

/** The settings without which values or rows would be lost silently. */
final class Profile {

    private record Rule(String key, String wanted, String unset, String why) {
    }

    private static final Rule[] RULES = {
        new Rule("provide.transaction.metadata", "true", "false",
                "without END markers no offset could ever be stored at a commit"),
        new Rule("snapshot.mode", "no_data", "initial",
                "rows of a snapshot are read through JDBC and are not exact; `cdc bootstrap` fills replicas"),
        new Rule("include.unknown.datatypes", "true", "false",
                "otherwise values of types Debezium does not know arrive as NULL"),
        new Rule("event.converting.failure.handling.mode", "fail", "warn",
                "otherwise a value that cannot be converted arrives as NULL"),
        new Rule("event.processing.failure.handling.mode", "fail", "fail",
                "otherwise a row that cannot be decoded is left out and the counts still agree"),
    };

    private Profile() {
    }

    /** The connector's settings, with those of ours that Debezium accepts but does not list. */
    static ConfigDef define(ConfigDef debezium) {
        ConfigDef all = new ConfigDef(debezium);
        for (Rule rule : RULES) {
            if (!all.names().contains(rule.key)) {
                all.define(rule.key, ConfigDef.Type.STRING, rule.unset, ConfigDef.Importance.HIGH,
                        "Must be " + rule.wanted + ": " + rule.why + ".");
            }
        }
        for (String key : new String[] {"converters", "signal.data.collection", "lsn.flush.mode"}) {
            if (!all.names().contains(key)) {
                all.define(key, ConfigDef.Type.STRING, null, ConfigDef.Importance.HIGH, "See docs/capture.md.");
            }
        }
        return all;
    }

    /** What is wrong with a configuration: a message for each key; empty if it may start. */
    static Map<String, String> violations(Map<String, String> config) {
        Map<String, String> found = new LinkedHashMap<>();
        for (Rule rule : RULES) {
            String given = config.getOrDefault(rule.key, rule.unset).strip();
            if (!given.equalsIgnoreCase(rule.wanted)) {
                found.put(rule.key, rule.key + " must be " + rule.wanted + ", not " + given + ": " + rule.why);
            }
        }
        String converter = config.getOrDefault("converters", "").strip();
        if (!ExactText.class.getName().equals(config.get(converter + ".type"))) {
            found.put("converters", "converters must name one converter, whose type is " + ExactText.class.getName()
                    + ": Debezium's own conversions lose values");
        }
        if (!config.getOrDefault("signal.data.collection", "").isBlank()) {
            found.put("signal.data.collection", "signal.data.collection must not be set: rows of an incremental"
                    + " snapshot are read through JDBC and are not exact; use `cdc bootstrap`");
        }
        if ("connector_and_driver".equalsIgnoreCase(config.getOrDefault("lsn.flush.mode", "connector").strip())) {
            found.put("lsn.flush.mode", "lsn.flush.mode must not be connector_and_driver: the server would forget"
                    + " changes that Kafka has not stored yet");
        }
        return found;
    }
}
