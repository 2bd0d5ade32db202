package cdc.capture;

import io.debezium.connector.postgresql.PgOid;
import io.debezium.connector.postgresql.TypeRegistry;
import io.debezium.connector.postgresql.UnchangedToastedReplicationMessageColumn;
import io.debezium.connector.postgresql.connection.pgoutput.PgOutputReplicationMessage;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.config.ConfigException;

/**
 * Whether the Debezium in use hands over values as this plugin counts on: text as the server sent it, and
 * of a value that was not sent an object without a class of its own.
 *
 * <p>Neither is promised by Debezium. So before anything is captured, and whenever a configuration is
 * validated, its decoder is given values that its own conversions alter.
 */
final class Proof {

    /** The setting that a validation tells the outcome under; nobody sets it. */
    static final String KEY = "exact.proof";

    /** What the decoder makes of a value of a type; the text is null where the server did not send it. */
    @FunctionalInterface
    interface Decoder {

        Object decode(Sample sample, String text);
    }

    /** A type and a value of it as the server prints it. */
    record Sample(int oid, String type, String text) {
    }

    private static final List<Sample> SAMPLES = List.of(
            new Sample(PgOid.INT4_ARRAY, "integer[]", "{{1,2},{3,4}}"),
            new Sample(PgOid.INT4_ARRAY, "integer[]", "[0:1]={7,8}"),
            new Sample(PgOid.TEXT_ARRAY, "text[]", "{{a,NULL},{\"c,d\",\"\"}}"),
            new Sample(PgOid.NUMERIC_ARRAY, "numeric[]", "{NaN,1.50,Infinity}"),
            new Sample(PgOid.NAME_ARRAY, "name[]", "{a,NULL}"),
            new Sample(PgOid.TIME, "time without time zone", "24:00:00"),
            new Sample(PgOid.TIMETZ, "time with time zone", "12:34:56.789012+02:03:04"),
            new Sample(PgOid.DATE, "date", "0044-03-15 BC"),
            new Sample(PgOid.TIMESTAMP, "timestamp without time zone", "infinity"),
            new Sample(PgOid.TIMESTAMPTZ, "timestamp with time zone", "294276-12-31 23:59:59.999999+00"),
            new Sample(PgOid.INTERVAL, "interval", "2500000000:00:00"),
            new Sample(PgOid.NUMERIC, "numeric", "1.50"),
            new Sample(PgOid.NUMERIC, "numeric", "-Infinity"),
            new Sample(PgOid.FLOAT8, "double precision", "-0"),
            new Sample(PgOid.INT8, "bigint", "-9223372036854775808"),
            new Sample(PgOid.BOOL, "boolean", "t"),
            new Sample(PgOid.BIT, "bit(4)", "0001"),
            new Sample(PgOid.VARBIT, "bit varying", "0001"),
            new Sample(PgOid.BYTEA, "bytea", "\\x00ff"),
            new Sample(PgOid.MONEY, "money", "-92233720368547758.08"),
            new Sample(PgOid.POINT, "point", "(1.5,-0)"),
            new Sample(PgOid.JSONB_OID, "jsonb", "{\"a\": 1e400}"),
            new Sample(PgOid.TSTZRANGE_OID, "tstzrange", "[\"2024-01-01 00:00:00.5+00\",infinity)"),
            new Sample(PgOid.TEXT, "text", "\u0001 \ud83d\ude00"),
            new Sample(PgOid.TEXT, "text", ""));

    private Proof() {
    }

    /**
     * Try the decoder as the stream uses it.
     *
     * @throws ConfigException naming each value that would arrive altered
     */
    static void require(TypeRegistry types) {
        List<String> wrong = wrong(types);
        if (!wrong.isEmpty()) {
            throw new ConfigException("values would arrive altered with this version of Debezium: "
                    + String.join("; ", wrong));
        }
    }

    /** One sentence for each value that would arrive altered with the decoder of the Debezium in use. */
    static List<String> wrong(TypeRegistry types) {
        return wrong((sample, text) -> text == null
                ? new UnchangedToastedReplicationMessageColumn("c", types.get(sample.oid), sample.type, true)
                        .getValue(() -> null, true)
                : PgOutputReplicationMessage.getValue(
                        "c", types.get(sample.oid), sample.type, text, () -> null, true, types));
    }

    static List<String> wrong(Decoder decoder) {
        List<String> wrong = new ArrayList<>();
        for (Sample sample : SAMPLES) {
            String arrives = arrives(decoder, sample, sample.text);
            String expected = ExactText.wire(sample.text, null);
            if (!expected.equals(arrives)) {
                wrong.add(sample.type + " " + sample.text + " arrives as " + arrives);
            }
            if (!ExactText.UNCHANGED.equals(arrives(decoder, sample, null))) {
                wrong.add("an unchanged " + sample.type + " cannot be told from a value");
            }
        }
        return wrong;
    }

    /** What the converter would send, or what it would refuse. */
    private static String arrives(Decoder decoder, Sample sample, String text) {
        try {
            Object value = decoder.decode(sample, text);
            boolean taken = value == null || value instanceof String || value.getClass() == Object.class;
            return taken ? ExactText.wire(value, null) : value.getClass().getName();
        } catch (RuntimeException | LinkageError thrown) { // another Debezium may have neither method
            return thrown.toString();
        }
    }
}
