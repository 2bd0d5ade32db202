package cdc.capture;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.header.Headers;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.source.SourceTask;
import org.apache.kafka.connect.source.SourceTaskContext;

/**
 * Debezium's task, whose records carry the source offset of the last END instead of their own,
 * and whose transactions name the one before (see {@link Chain}).
 *
 * <p>Connect then never stores a position inside a transaction. Debezium skips every row that
 * shares the stored LSN when it resumes there, and up to some hundred rows of one COPY do. The
 * price: whatever was cut off is sent again from its BEGIN.
 *
 * <p>The slot follows by itself: Debezium confirms to the server what it reads back from Connect's
 * offset store, so the server never forgets anything after the last stored END.
 */
public final class ExactTask extends SourceTask {

    private final SourceTask inner;
    private final Chain chain;
    private final TrueNames names = new TrueNames();
    private Map<String, ?> boundary;
    private boolean loaded;

    /** Made by Connect. */
    public ExactTask() {
        this(new ServerTextTask());
    }

    private ExactTask(ServerTextTask inner) {
        this(inner, new Chain(inner::stream));
    }

    ExactTask(SourceTask inner, Chain chain) {
        this.inner = inner;
        this.chain = chain;
    }

    @Override
    public String version() {
        return inner.version();
    }

    @Override
    public void initialize(SourceTaskContext context) {
        super.initialize(context);
        inner.initialize(context);
    }

    @Override
    public void start(Map<String, String> config) {
        Map<String, String> violations = Profile.violations(config);
        if (!violations.isEmpty()) {
            throw new ConfigException(String.join("; ", violations.values()));
        }
        inner.start(config);
    }

    @Override
    public List<SourceRecord> poll() throws InterruptedException {
        List<SourceRecord> records = inner.poll();
        if (records == null || records.isEmpty()) {
            return records;
        }
        List<SourceRecord> moved = new ArrayList<>(records.size());
        for (SourceRecord record : records) {
            moved.add(atBoundary(names.restored(record)));
        }
        return moved;
    }

    @Override
    public void commit() throws InterruptedException {
        inner.commit();
    }

    @Override
    public void commitRecord(SourceRecord record, RecordMetadata metadata) throws InterruptedException {
        inner.commitRecord(record, metadata);
    }

    @Override
    public void stop() {
        inner.stop();
    }

    private SourceRecord atBoundary(SourceRecord record) {
        refuseSnapshot(record);
        Headers headers = chain.link(record);
        if (!loaded) {
            boundary = stored(record.sourcePartition());
            loaded = true;
        }
        if (CommitOffset.endsTransaction(record)) {
            Map<String, Object> end = CommitOffset.of(record);
            // After an error Debezium restarts within this task and sends older transactions again;
            // everything up to the boundary was handed over before them, so it need not go back.
            if (boundary == null || CommitOffset.lsn(end) > CommitOffset.lsn(boundary)) {
                boundary = end;
            }
        }
        // Before the first END there is no boundary: a null offset stores none, and a restart
        // begins where the slot does, as this run did.
        return new SourceRecord(record.sourcePartition(), boundary, record.topic(), record.kafkaPartition(),
                record.keySchema(), record.key(), record.valueSchema(), record.value(), record.timestamp(),
                headers);
    }

    private Map<String, ?> stored(Map<String, ?> partition) {
        Map<String, ?> offset = context.offsetStorageReader().offset(partition);
        if (offset != null && !CommitOffset.isOne(offset)) {
            throw new ConnectException("the stored offset " + offset + " of " + partition + " is not at a commit:"
                    + " another connector class wrote it, and rows after it may be missing from the topic;"
                    + " set it to the END LSN of a whole transaction, or delete it and fill the replicas again");
        }
        return offset;
    }

    private static void refuseSnapshot(SourceRecord record) {
        if (record.value() instanceof Struct value
                && value.schema().field("op") != null
                && "r".equals(value.getString("op"))) {
            throw new ConnectException("a snapshot row arrived for " + record.topic() + ": snapshots read"
                    + " through JDBC are not exact; remove the signal and use `cdc bootstrap`");
        }
    }
}
