package cdc.capture;

import java.util.HashMap;
import java.util.Map;
import java.util.Objects;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.source.SourceRecord;

/** Source offsets that lie exactly at the end of a transaction. */
final class CommitOffset {

    private CommitOffset() {
    }

    /** Is this record Debezium's marker for the start of a transaction? */
    static boolean beginsTransaction(SourceRecord record) {
        return isMarker(record, "BEGIN");
    }

    /** Is this record Debezium's marker for the end of a transaction? */
    static boolean endsTransaction(SourceRecord record) {
        return isMarker(record, "END");
    }

    private static boolean isMarker(SourceRecord record, String status) {
        return record.value() instanceof Struct value
                && value.schema().field("status") != null
                && value.schema().field("event_count") != null
                && status.equals(value.getString("status"));
    }

    /**
     * The offset from which Debezium sends everything after this END and nothing before it.
     *
     * <p>The id of END is {@code txid:lsn}, the LSN being the end of the commit record. Without
     * {@code transaction_*} Debezium starts counting anew; {@code messageType=COMMIT} makes it look
     * for the first change after the position instead of skipping rows that share its LSN.
     */
    static Map<String, Object> of(SourceRecord end) {
        String id = ((Struct) end.value()).getString("id");
        long lsn;
        try {
            lsn = Long.parseLong(id.substring(id.indexOf(':') + 1));
        } catch (NumberFormatException e) {
            throw new ConnectException("END of a transaction has the id '" + id + "', expected txid:lsn", e);
        }
        Map<String, Object> offset = new HashMap<>();
        end.sourceOffset().forEach((key, value) -> {
            if (!key.startsWith("transaction_")) {
                offset.put(key, value);
            }
        });
        offset.put("lsn", lsn);
        offset.put("lsn_proc", lsn);
        offset.put("lsn_commit", lsn);
        offset.put("messageType", "COMMIT");
        return offset;
    }

    /** The position of an offset made by {@link #of}, in bytes of the log. */
    static long lsn(Map<String, ?> offset) {
        return ((Number) offset.get("lsn")).longValue();
    }

    /** Does this offset lie at a commit, so that no transaction is cut in two? */
    static boolean isOne(Map<String, ?> offset) {
        return offset.get("lsn") instanceof Number lsn
                && same(lsn, offset.get("lsn_proc"))
                && same(lsn, offset.get("lsn_commit"))
                && Objects.equals(offset.get("messageType"), "COMMIT")
                && offset.get("transaction_id") == null;
    }

    private static boolean same(Number lsn, Object other) {
        return other instanceof Number number && number.longValue() == lsn.longValue();
    }
}
