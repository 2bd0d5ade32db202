package cdc.capture;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;

/** The settings without which rows or values would be lost silently. */
final class Profile {

    /** A setting, the values it may have (the wanted one first), Debezium's default, and why. */
    private record Rule(String key, List<String> accepted, String unset, String why) {

        private String said() {
            return key + " must be " + String.join(" or ", accepted);
        }
    }

    private static final List<Rule> RULES = List.of(
            new Rule("provide.transaction.metadata", List.of("true"), "false",
                    "without END markers no offset could ever be stored at a commit"),
            new Rule("snapshot.mode", List.of("no_data"), "initial",
                    "rows of a snapshot are read through JDBC and are not exact; `cdc bootstrap` fills replicas"),
            new Rule("event.converting.failure.handling.mode", List.of("fail"), "warn",
                    "otherwise a value that cannot be converted arrives as NULL"),
            new Rule("event.processing.failure.handling.mode", List.of("fail"), "fail",
                    "otherwise a row that cannot be decoded is left out and the counts still agree"),
            new Rule("skipped.operations", List.of("none"), "t",
                    "otherwise changes are left out and the counts still agree"),
            new Rule("table.ignore.builtin", List.of("false"), "true",
                    "otherwise rows of every table named spatial_ref_sys are left out and the counts still agree"),
            new Rule("plugin.name", List.of("pgoutput"), "decoderbufs",
                    "only pgoutput sends every value as the server's text"),
            new Rule("slot.drop.on.stop", List.of("false"), "false",
                    "otherwise every change made while the connector is stopped is lost"),
            new Rule("offset.mismatch.strategy", List.of("no_validation", "trust_offset"), "no_validation",
                    "otherwise changes between the stored offset and the slot are passed over"),
            new Rule("lsn.flush.mode", List.of("connector", "manual"), "connector",
                    "otherwise the server forgets changes that Kafka has not stored yet"),
            new Rule("signal.data.collection", List.of(""), "",
                    "rows of an incremental snapshot are read through JDBC and are not exact; use `cdc bootstrap`"));

    private static final String CONVERTERS = "converters";

    private Profile() {
    }

    /** Debezium's settings, and those of ours that it accepts but does not list. */
    static ConfigDef define(ConfigDef debezium) {
        ConfigDef all = new ConfigDef(debezium);
        for (Rule rule : RULES) {
            if (!all.names().contains(rule.key)) {
                all.define(rule.key, ConfigDef.Type.STRING, rule.unset, ConfigDef.Importance.HIGH,
                        rule.said() + ": " + rule.why);
            }
        }
        all.define(Proof.KEY, ConfigDef.Type.STRING, "", ConfigDef.Importance.LOW, "not to be set: a validation"
                + " tells here for which Debezium it has tried that values arrive as the server sends them");
        if (!all.names().contains(CONVERTERS)) {
            all.define(CONVERTERS, ConfigDef.Type.STRING, "", ConfigDef.Importance.HIGH, converterWanted());
        }
        return all;
    }

    /** What is wrong with a configuration, a message for each key; empty if it may start. */
    static Map<String, String> violations(Map<String, String> config) {
        Map<String, String> found = new LinkedHashMap<>();
        for (Rule rule : RULES) {
            String given = config.getOrDefault(rule.key, rule.unset).strip();
            if (rule.accepted.stream().noneMatch(given::equalsIgnoreCase)) {
                found.put(rule.key, (rule.accepted.contains("") ? rule.key + " must not be set"
                        : rule.said() + ", it is " + given) + ": " + rule.why);
            }
        }
        String converter = config.getOrDefault(CONVERTERS, "").strip();
        if (!ExactText.class.getName().equals(config.get(converter + ".type"))) {
            found.put(CONVERTERS, converterWanted());
        }
        return found;
    }

    private static String converterWanted() {
        return "converters must name one converter, whose type is " + ExactText.class.getName()
                + ": Debezium's own conversions lose values";
    }
}
