package cdc.capture;

import java.util.Objects;
import java.util.function.Supplier;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.header.ConnectHeaders;
import org.apache.kafka.connect.header.Headers;
import org.apache.kafka.connect.source.SourceRecord;

/**
 * The chain of transactions: each BEGIN names the END before it (the first one of a stream, the
 * place after which the server sends every commit), and the server and timeline that sent it (see
 * {@link Origin}), in headers.
 *
 * <p>Readers see by it that a transaction is missing before they apply anything of the next one,
 * also where that one is empty. Debezium's own link, {@code source.sequence}, stands only in rows,
 * and a message outside transactions takes the END's place in it.
 */
final class Chain {

    static final String HEADER = "cdc.previous";

    private final Supplier<Whole> streams;
    private Whole stream;
    private long previous;
    private boolean ended;
    private Long message;

    /** {@code streams} gives the stream that Debezium reads now: another one after each error. */
    Chain(Supplier<Whole> streams) {
        this.streams = streams;
    }

    /** The headers with which a record is handed on; to be asked for every record, in order. */
    Headers link(SourceRecord record) {
        if (CommitOffset.endsTransaction(record)) {
            follow();
            previous = CommitOffset.lsn(CommitOffset.of(record));
            ended = true;
            message = null;
        } else if (isMessageOutside(record)) {
            follow();
            message = committed(record);
        } else if (CommitOffset.beginsTransaction(record)) {
            follow();
            check(committed(record));
            return new ConnectHeaders(record.headers()).addLong(HEADER, previous)
                    .addString(Origin.HEADER, stream.origin());
        }
        return record.headers();
    }

    private void follow() {
        Whole now = streams.get();
        if (now != stream) {
            stream = now;
            previous = now.from();
            ended = false;
            message = null;
        }
    }

    /** Before the first END of a stream Debezium has what was stored, which may be older, or nothing. */
    private void check(Long debezium) {
        boolean sound = ended ? Objects.equals(debezium, previous) : debezium == null || debezium <= previous;
        if (!sound && (message == null || !message.equals(debezium))) {
            throw new ConnectException("Debezium passed over a transaction: the one that begins follows the commit at "
                    + debezium + ", the last one handed over ends at " + previous + "; nothing is lost if the connector"
                    + " is restarted, it goes on from the last END that is stored");
        }
    }

    /** What Debezium takes for the last commit: an END, or a message outside transactions. */
    private static Long committed(SourceRecord record) {
        return record.sourceOffset().get("lsn_commit") instanceof Number lsn ? lsn.longValue() : null;
    }

    private static boolean isMessageOutside(SourceRecord record) {
        return record.value() instanceof Struct value
                && value.schema().field("op") != null
                && "m".equals(value.getString("op"))
                && value.getStruct("source").getInt64("txId") == null;
    }
}
