package cdc.capture;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.debezium.relational.TableId;
import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.kafka.connect.data.Field;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.source.SourceRecord;
import org.junit.jupiter.api.Test;

class NamesTest {

    private static final String MARK = DistinctNames.MARK;
    private static final int TEXT = 25;

    private final DistinctNames names = new DistinctNames(null);
    private final TrueNames own = new TrueNames();

    @Test
    void aDescriptionWhoseNamesAreDistinctStaysAsItIs() {
        ByteBuffer sent = table(1, "app", "orders", "id", "note");

        assertSame(sent, names.distinct(sent));
        assertEquals(0, sent.position());
    }

    @Test
    void columnsThatDifferOnlyByCaseGetNamesOfTheirOwn() {
        assertEquals(List.of("app", "t", "n", "Id" + MARK + 1, "v", "iD" + MARK + 3),
                read(names.distinct(table(1, "app", "t", "n", "Id", "v", "iD"))));
    }

    @Test
    void theSecondOfTwoTablesThatAreOneTextLosesItsDots() {
        assertEquals(List.of("a", "b.c", "id"), read(names.distinct(table(1, "a", "b.c", "id"))));
        assertEquals(List.of("a" + MARK + "0b", "c", "id"), read(names.distinct(table(2, "a.b", "c", "id"))));
        assertEquals(List.of("a", "b.c", "id"), read(names.distinct(table(1, "a", "b.c", "id"))));
    }

    @Test
    void aNameThatDebeziumReadsOtherwiseThanItWroteIsCarried() {
        for (String name : List.of("it''s", "a``b", "\"q\"", "\"q", "\"q.r", "q.r\"", "\u0001.\u0001\"", "[q]", "a\"b", " q ", "'q'")) {
            List<String> sent = read(names.distinct(table(name.hashCode(), name, name + "x\"", "id")));
            TableId found = TableId.parse(new TableId(null, sent.get(0), sent.get(1)).toDoubleQuotedString(), false);
            Struct source = ((Struct) own.restored(event(found.schema(), found.table(), "id")).value()).getStruct("source");

            assertEquals(List.of(name, name + "x\""), List.of(source.get("schema"), source.get("table")));
        }
    }

    @Test
    void aColumnThatEndsLikeAMarkKeepsItsName() {
        assertEquals(List.of("a\u0001", "A\u0001"), names(((Struct) own.restored(
                event("app", "t", "a\u0001" + MARK + 0, "A\u0001" + MARK + 1)).value()).getStruct("after")));
    }

    @Test
    void aRowWithoutColumnsGetsOne() {
        assertEquals(List.of("app", "bare", MARK), read(names.distinct(table(7, "app", "bare"))));

        assertEquals("I 7 N 1 t0", row(names.distinct(row('I', 7, "N"))));
        assertEquals("U 7 O 1 t0 N 1 t0", row(names.distinct(row('U', 7, "ON"))));
        assertEquals("D 7 O 1 t0", row(names.distinct(row('D', 7, "O"))));
        ByteBuffer other = row('D', 8, "O");
        assertSame(other, names.distinct(other));
    }

    @Test
    void aTableThatGotColumnsIsNotBareAnyMore() {
        names.distinct(table(7, "app", "bare"));
        names.distinct(table(7, "app", "bare", "id"));
        ByteBuffer sent = row('I', 7, "N");

        assertSame(sent, names.distinct(sent));
    }

    @Test
    void aRowWithColumnsInATableWithoutIsRefused() {
        names.distinct(table(7, "app", "bare"));
        ByteBuffer sent = ByteBuffer.allocate(8).put((byte) 'I').putInt(7).put((byte) 'N').putShort((short) 2).flip();

        assertThrows(IllegalStateException.class, () -> names.distinct(sent));
    }

    @Test
    void otherMessagesPass() {
        ByteBuffer begin = ByteBuffer.wrap(new byte[] {'B', 0, 0, 0});

        assertSame(begin, names.distinct(begin));
    }

    @Test
    void anEventGetsItsOwnNamesBack() {
        SourceRecord found = own.restored(event("a" + MARK + "0b", "c", "Id" + MARK + 1, "v", "iD" + MARK + 3));
        Struct value = (Struct) found.value();

        assertEquals(List.of("Id", "v", "iD"), names(value.getStruct("after")));
        assertEquals("Id" + MARK + 1, value.getStruct("after").get("Id"));
        assertEquals(null, value.getStruct("before"));
        assertEquals("a.b", value.getStruct("source").get("schema"));
        assertEquals("c", value.getStruct("source").get("table"));
        value.validate();
    }

    @Test
    void aColumnThatNoTableHasGoes() {
        assertEquals(List.of(), names(((Struct) own.restored(event("app", "bare", MARK)).value()).getStruct("after")));
    }

    @Test
    void anEventWithItsOwnNamesStaysAsItIs() {
        SourceRecord sent = event("app", "orders", "id");

        assertSame(sent, own.restored(sent));
    }

    @Test
    void anEndCountsTablesByTheirOwnNames() {
        Schema count = SchemaBuilder.struct().field("data_collection", Schema.STRING_SCHEMA).build();
        Schema end = SchemaBuilder.struct().field("data_collections", SchemaBuilder.array(count).optional().build()).build();
        Struct value = new Struct(end).put("data_collections",
                List.of(new Struct(count).put("data_collection", "a" + MARK + "0b.c")));

        own.restored(record(value));
        own.restored(record(new Struct(end)));

        assertEquals("a.b.c", value.<Struct>getArray("data_collections").get(0).get("data_collection"));
    }

    private static List<String> names(Struct row) {
        return row.schema().fields().stream().map(Field::name).toList();
    }

    private static SourceRecord record(Struct value) {
        return new SourceRecord(Map.of(), Map.of(), "app", value.schema(), value);
    }

    /** An insert whose columns hold their own names. */
    private static SourceRecord event(String schema, String table, String... columns) {
        SchemaBuilder row = SchemaBuilder.struct().optional();
        for (String column : columns) {
            row.field(column, Schema.OPTIONAL_STRING_SCHEMA);
        }
        Schema image = row.build();
        Schema source = SchemaBuilder.struct().field("schema", Schema.STRING_SCHEMA)
                .field("table", Schema.STRING_SCHEMA).build();
        Schema event = SchemaBuilder.struct().field("before", image).field("after", image)
                .field("source", source).field("op", Schema.STRING_SCHEMA).build();
        Struct after = new Struct(image);
        for (String column : columns) {
            after.put(column, column);
        }
        return record(new Struct(event).put("after", after).put("op", "c")
                .put("source", new Struct(source).put("schema", schema).put("table", table)));
    }

    /** A table's description as pgoutput sends it. */
    private static ByteBuffer table(int number, String schema, String name, String... columns) {
        ByteArrayOutputStream text = new ByteArrayOutputStream();
        text.writeBytes((schema + "\0" + name + "\0").getBytes(StandardCharsets.UTF_8));
        ByteBuffer written = ByteBuffer.allocate(1000).put((byte) 'R').putInt(number).put(text.toByteArray())
                .put((byte) 'd').putShort((short) columns.length);
        for (String column : columns) {
            written.put((byte) 0).put((column + "\0").getBytes(StandardCharsets.UTF_8)).putInt(TEXT).putInt(-1);
        }
        return written.flip();
    }

    /** Schema, table and columns of a description. */
    private static List<String> read(ByteBuffer message) {
        ByteBuffer sent = message.duplicate();
        sent.position(5);
        List<String> found = new ArrayList<>(List.of(name(sent), name(sent)));
        assertEquals('d', sent.get());
        for (int count = sent.getShort(); count > 0; count--) {
            sent.get();
            found.add(name(sent));
            assertEquals(TEXT, sent.getInt());
            assertEquals(-1, sent.getInt());
        }
        assertEquals(0, sent.remaining());
        return found;
    }

    private static String name(ByteBuffer sent) {
        ByteArrayOutputStream found = new ByteArrayOutputStream();
        for (byte one = sent.get(); one != 0; one = sent.get()) {
            found.write(one);
        }
        return found.toString(StandardCharsets.UTF_8);
    }

    /** A row's message with an empty image for each of `images`. */
    private static ByteBuffer row(char kind, int table, String images) {
        ByteBuffer written = ByteBuffer.allocate(100).put((byte) kind).putInt(table);
        for (char image : images.toCharArray()) {
            written.put((byte) image).putShort((short) 0);
        }
        return written.flip();
    }

    private static String row(ByteBuffer message) {
        ByteBuffer sent = message.duplicate();
        StringBuilder told = new StringBuilder().append((char) sent.get()).append(' ').append(sent.getInt());
        while (sent.hasRemaining()) {
            told.append(' ').append((char) sent.get()).append(' ').append(sent.getShort()).append(' ')
                    .append((char) sent.get()).append(sent.getInt());
        }
        return told.toString();
    }
}
