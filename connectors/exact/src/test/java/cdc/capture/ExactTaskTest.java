package cdc.capture;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.debezium.connector.postgresql.connection.Lsn;
import io.debezium.connector.postgresql.connection.ReplicationConnection;
import io.debezium.connector.postgresql.connection.ReplicationStream;
import io.debezium.connector.postgresql.connection.WalPositionLocator;
import java.lang.reflect.Proxy;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Supplier;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.errors.ConnectException;
import org.apache.kafka.connect.header.Header;
import org.apache.kafka.connect.header.Headers;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.source.SourceTask;
import org.apache.kafka.connect.source.SourceTaskContext;
import org.apache.kafka.connect.storage.OffsetStorageReader;
import org.junit.jupiter.api.Test;

class ExactTaskTest {

    private static final String ORIGIN = "7412/2";
    private static final Map<String, ?> PARTITION = Map.of("server", "app");
    private static final Schema MARKER = SchemaBuilder.struct().field("status", Schema.STRING_SCHEMA)
            .field("id", Schema.STRING_SCHEMA).field("event_count", Schema.OPTIONAL_INT64_SCHEMA).build();
    private static final Schema SOURCE = SchemaBuilder.struct().field("txId", Schema.OPTIONAL_INT64_SCHEMA).build();
    private static final Schema MESSAGE = SchemaBuilder.struct().field("op", Schema.STRING_SCHEMA)
            .field("source", SOURCE).build();
    private static final Schema ROW = SchemaBuilder.struct().field("op", Schema.STRING_SCHEMA).build();

    @Test
    void everythingBeforeTheFirstEndHasNoOffset() throws Exception {
        assertEquals(List.of("none", "none", "none"), offsets(null, begin(null), row(11), row(12)));
    }

    @Test
    void everythingBeforeTheFirstEndKeepsTheStoredOffset() throws Exception {
        assertEquals(List.of("5", "5", "20"), offsets(at(5), begin(null), row(11), end(20)));
    }

    @Test
    void rowsAfterAnEndCarryItsOffset() throws Exception {
        assertEquals(List.of("20", "20", "20", "40"), offsets(null, end(20), begin(20L), row(30), end(40)));
    }

    @Test
    void transactionsSentAgainDoNotMoveTheOffsetBack() throws Exception {
        assertEquals(List.of("40", "40", "40", "60"), offsets(null, end(40), end(20), row(50), end(60)));
    }

    @Test
    void anOffsetAtAnEndHasNothingOfTheTransaction() {
        Map<String, Object> offset = CommitOffset.of(end(20));

        assertTrue(CommitOffset.isOne(offset));
        assertNull(offset.get("transaction_id"));
        assertEquals(7L, offset.get("txId"));
    }

    @Test
    void anOffsetInsideATransactionStopsTheTask() {
        assertThrows(ConnectException.class, () -> offsets(Map.of("lsn", 5L, "transaction_id", "7"), begin(null)));
    }

    @Test
    void aSnapshotRowStopsTheTask() {
        SourceRecord row = record(new Struct(ROW).put("op", "r"), 5);

        assertThrows(ConnectException.class, () -> offsets(at(5), row));
    }

    @Test
    void anEndWithoutAnLsnStopsTheTask() {
        Struct end = new Struct(MARKER).put("status", "END").put("id", "7");

        assertThrows(ConnectException.class, () -> CommitOffset.of(record(end.put("id", "7:x"), 5)));
    }

    @Test
    void emptyPollsPassThrough() throws Exception {
        ExactTask task = task(null, new ArrayDeque<>());

        assertNull(task.poll());
    }

    @Test
    void aTaskDoesNotStartWithALosingConfiguration() {
        ExactTask task = task(null, new ArrayDeque<>());

        ConfigException refused = assertThrows(ConfigException.class, () -> task.start(Map.of()));
        assertTrue(refused.getMessage().contains("provide.transaction.metadata must be true, it is false"));
    }

    @Test
    void aTransactionNamesTheEndBeforeIt() throws Exception {
        assertEquals(List.of("5", "20", "40"), links(whole(5), begin(null), end(20), begin(20L), end(40), begin(40L)));
    }

    @Test
    void theFirstOneNamesWhereTheStreamBegan() throws Exception {
        assertEquals(List.of("5"), links(whole(5), begin(5L)));
    }

    @Test
    void whatTheSlotHasForgottenIsNotPromised() throws Exception {
        assertEquals(List.of("8"), links(whole(5, 8), begin(5L)));
        assertEquals(List.of("5"), links(whole(5, 3), begin(5L)));
    }

    @Test
    void aMessageOutsideTransactionsIsNoLink() throws Exception {
        assertEquals(List.of("20"), links(whole(5), end(20), message(30), begin(30L)));
        assertEquals(List.of("5"), links(whole(5), message(30), begin(30L)));
    }

    @Test
    void aStreamOpenedAgainBeginsTheChainAnew() throws Exception {
        Deque<Whole> streams = new ArrayDeque<>(List.of(whole(5), whole(5)));
        Chain chain = new Chain(streams::peek);
        link(chain, begin(5L));
        link(chain, end(20));
        streams.remove();

        assertEquals("5", link(chain, begin(5L)));
    }

    @Test
    void aTransactionThatDebeziumPassesOverStopsTheTask() throws Exception {
        for (SourceRecord[] records : List.of(
                new SourceRecord[] {end(20), begin(30L)}, new SourceRecord[] {begin(20L)},
                new SourceRecord[] {end(20), begin(null)}, new SourceRecord[] {end(20), message(30), begin(40L)})) {
            ConnectException refused = assertThrows(ConnectException.class, () -> links(whole(5), records));

            assertTrue(refused.getMessage().contains("Debezium passed over a transaction"));
        }
    }

    @Test
    void aTransactionSaysWhoseHistoryItBelongsTo() throws Exception {
        Chain chain = new Chain(always(whole(5)));

        assertEquals(ORIGIN, chain.link(begin(null)).lastWithName(Origin.HEADER).value());
        assertNull(chain.link(end(20)).lastWithName(Origin.HEADER));
    }

    @Test
    void aTransactionKeepsItsOtherHeaders() throws Exception {
        SourceRecord begin = begin(5L);
        begin.headers().addString("other", "kept");
        Headers found = new Chain(always(whole(5))).link(begin);

        assertEquals("kept", found.lastWithName("other").value());
        assertEquals(1, begin.headers().size());
    }

    @Test
    void debeziumIsGivenNothingToSearch() throws Exception {
        Deque<Object> given = new ArrayDeque<>();
        ReplicationConnection inner = (ReplicationConnection) Proxy.newProxyInstance(Whole.class.getClassLoader(),
                new Class<?>[] {ReplicationConnection.class}, (self, called, arguments) -> {
                    given.add(arguments[1]);
                    return null;
                });
        WalPositionLocator locator = new WalPositionLocator(Lsn.valueOf(5L), Lsn.valueOf(5L), null);
        new Whole(inner, asked -> ORIGIN, () -> 0).connection().startStreaming(Lsn.valueOf(5L), locator);

        assertTrue(locator.searchingEnabled());
        assertFalse(((WalPositionLocator) given.remove()).searchingEnabled());
    }

    private static SourceRecord record(Struct value, Map<String, ?> offset) {
        return new SourceRecord(PARTITION, offset, "cdc.app", value.schema(), value);
    }

    private static SourceRecord record(Struct value, long lsn) {
        return record(value, new HashMap<>(Map.of("lsn", lsn, "txId", 7L, "transaction_id", "7")));
    }

    /** A BEGIN of which Debezium says that it follows the commit at {@code after}. */
    private static SourceRecord begin(Long after) {
        Map<String, Object> offset = new HashMap<>(Map.of("lsn", 10L));
        offset.put("lsn_commit", after);
        return record(new Struct(MARKER).put("status", "BEGIN").put("id", "7:10"), offset);
    }

    private static SourceRecord row(long lsn) {
        return record(new Struct(ROW).put("op", "c"), lsn);
    }

    private static SourceRecord message(long lsn) {
        Struct value = new Struct(MESSAGE).put("op", "m").put("source", new Struct(SOURCE));
        return record(value, Map.of("lsn", lsn, "lsn_commit", lsn));
    }

    private static SourceRecord end(long lsn) {
        return record(new Struct(MARKER).put("status", "END").put("id", "7:" + lsn).put("event_count", 1L), lsn - 1);
    }

    private static Map<String, ?> at(long lsn) {
        return Map.of("lsn", lsn, "lsn_proc", lsn, "lsn_commit", lsn, "messageType", "COMMIT");
    }

    /** The LSN each record's offset has, one poll for each record. */
    private static List<String> offsets(Map<String, ?> stored, SourceRecord... records) throws Exception {
        ExactTask task = task(stored, new ArrayDeque<>(List.of(records)));
        Deque<String> found = new ArrayDeque<>();
        for (List<SourceRecord> polled = task.poll(); polled != null; polled = task.poll()) {
            Map<String, ?> offset = polled.get(0).sourceOffset();
            found.add(offset == null ? "none" : offset.get("lsn").toString());
        }
        return List.copyOf(found);
    }

    /** What each BEGIN among the records names as the END before it. */
    private static List<String> links(Whole stream, SourceRecord... records) {
        Chain chain = new Chain(always(stream));
        Deque<String> found = new ArrayDeque<>();
        for (SourceRecord record : records) {
            String link = link(chain, record);
            if (CommitOffset.beginsTransaction(record)) {
                found.add(link);
            }
        }
        return List.copyOf(found);
    }

    private static String link(Chain chain, SourceRecord record) {
        Header link = chain.link(record).lastWithName(Chain.HEADER);
        return link == null ? "none" : link.value().toString();
    }

    private static <T> Supplier<T> always(T value) {
        return () -> value;
    }

    private static Whole whole(long from) throws Exception {
        return whole(from, from);
    }

    /** A stream that was asked for from an LSN on, of a slot that has forgotten what is before another. */
    private static Whole whole(long from, long confirmed) throws Exception {
        ReplicationStream opened = answering(ReplicationStream.class, "startLsn", Lsn.valueOf(from));
        Whole stream = new Whole(answering(ReplicationConnection.class, "startStreaming", opened), asked -> ORIGIN,
                () -> confirmed);
        stream.connection().startStreaming(new WalPositionLocator());
        return stream;
    }

    private static ExactTask task(Map<String, ?> stored, Deque<SourceRecord> records) {
        ExactTask task = new ExactTask(new SourceTask() {
            @Override
            public String version() {
                return "1";
            }

            @Override
            public void start(Map<String, String> config) {
                throw new AssertionError("a refused task was started");
            }

            @Override
            public List<SourceRecord> poll() {
                return records.isEmpty() ? null : List.of(records.remove());
            }

            @Override
            public void stop() {
                records.clear();
            }
        }, new Chain(always(new Whole(null, asked -> ORIGIN, () -> 0))));
        OffsetStorageReader reader = answering(OffsetStorageReader.class, "offset", stored);
        task.initialize(answering(SourceTaskContext.class, "offsetStorageReader", reader));
        return task;
    }

    private static <T> T answering(Class<T> type, String method, Object answer) {
        return type.cast(Proxy.newProxyInstance(type.getClassLoader(), new Class<?>[] {type}, (self, called, given) -> {
            assertEquals(method, called.getName());
            return answer;
        }));
    }
}
