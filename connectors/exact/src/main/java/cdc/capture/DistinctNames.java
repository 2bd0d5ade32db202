package cdc.capture;

import io.debezium.connector.postgresql.PgOid;
import io.debezium.connector.postgresql.PostgresSchema;
import io.debezium.connector.postgresql.TypeRegistry;
import io.debezium.connector.postgresql.connection.Lsn;
import io.debezium.connector.postgresql.connection.MessageDecoder;
import io.debezium.connector.postgresql.connection.PostgresReplicationConnection;
import io.debezium.connector.postgresql.connection.ReplicationConnection;
import io.debezium.connector.postgresql.connection.ReplicationStream.ReplicationMessageProcessor;
import io.debezium.connector.postgresql.connection.WalPositionLocator;
import io.debezium.relational.RelationalDatabaseSchema;
import io.debezium.relational.TableId;
import io.debezium.relational.Tables.TableFilter;
import java.io.ByteArrayOutputStream;
import java.lang.reflect.Field;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Function;
import org.apache.kafka.common.config.ConfigException;
import org.postgresql.replication.fluent.logical.ChainedLogicalStreamBuilder;

/**
 * Gives what Debezium cannot tell apart, or passes over, names and columns of its own before it reads them;
 * {@link TrueNames} takes them away again.
 *
 * <p>Debezium keeps columns by lower-case name, and stops at a table with two that differ only by case.
 * It keeps tables by schema and name with a dot between, so that the rows of "a"."b.c" would come as
 * those of "a.b"."c"; and it writes a name down and reads it again, after which "it''s" is it's. Of a
 * row without columns (all may be generated) it sends nothing.
 *
 * <p>pgoutput describes each table before its first row (PostgreSQL manual, Logical Replication Message
 * Formats), and rows name it by number: so only descriptions are written anew, and rows without columns.
 */
final class DistinctNames implements MessageDecoder {

    /** Longer than any name of PostgreSQL's (63 bytes), so that it stands in none. */
    static final String MARK = "\u0001".repeat(64);

    /** What a table's name may not hold where it is given another: each becomes a mark and its place here. */
    static final String SPECIAL = ".\"'`";

    private final MessageDecoder inner;
    private volatile boolean reading;
    private final Map<String, List<String>> taken = new HashMap<>();
    private final Set<Integer> bare = new HashSet<>();

    DistinctNames(MessageDecoder inner) {
        this.inner = inner;
    }

    /**
     * Let a connection read by a decoder like this one, and a schema know no table before the stream describes it.
     *
     * <p>Debezium reads all tables from the catalog when it starts, stops at one with columns that differ
     * only by case, and has no use for the others: the stream describes each once more.
     *
     * @throws ConfigException where this Debezium is built otherwise
     */
    static ReplicationConnection in(
            ReplicationConnection connection, PostgresSchema schema, TableFilter included) {
        try {
            Field decoder = field(PostgresReplicationConnection.class, "messageDecoder");
            DistinctNames names = new DistinctNames((MessageDecoder) decoder.get(connection));
            decoder.set(connection, names);
            field(RelationalDatabaseSchema.class, "tableFilter")
                    .set(schema, (TableFilter) table -> names.reading && included.isIncluded(table));
        } catch (ReflectiveOperationException | RuntimeException thrown) {
            throw new ConfigException("this version of Debezium does not let its decoder be wrapped: " + thrown);
        }
        return connection;
    }

    private static Field field(Class<?> of, String name) throws NoSuchFieldException {
        Field field = of.getDeclaredField(name);
        field.setAccessible(true);
        return field;
    }

    @Override
    public void processMessage(ByteBuffer message, ReplicationMessageProcessor processor, TypeRegistry types)
            throws SQLException, InterruptedException {
        reading = true;
        inner.processMessage(message == null ? null : distinct(message), processor, types);
    }

    /** The message as Debezium is to read it; most are what they were. */
    ByteBuffer distinct(ByteBuffer message) {
        ByteBuffer read = message.duplicate();
        switch (read.get()) {
            case 'R':
                return described(read, message);
            case 'I', 'U', 'D':
                return bare.isEmpty() || !bare.contains(read.getInt()) ? message : filled(read, message);
            default:
                return message;
        }
    }

    private ByteBuffer described(ByteBuffer read, ByteBuffer message) {
        int table = read.getInt();
        List<String> name = List.of(text(read), text(read));
        byte identity = read.get();
        int count = read.getShort();
        List<Column> columns = new ArrayList<>(count);
        Map<String, Integer> alike = new HashMap<>();
        for (int i = 0; i < count; i++) {
            Column column = new Column(read.get(), text(read), read.getInt(), read.getInt());
            columns.add(column);
            alike.merge(folded(column.name), 1, Integer::sum);
        }
        List<String> first = taken.putIfAbsent(String.join(".", name), name);
        boolean mistaken = first != null && !first.equals(name) || !isReadAgain(name);
        boolean empty = count == 0;
        if (empty) {
            bare.add(table);
            columns.add(new Column((byte) 0, MARK, PgOid.TEXT, -1));
        } else {
            bare.remove(table);
        }
        if (!mistaken && !empty && alike.size() == count) {
            return message;
        }
        Message written = new Message().put('R').putInt(table);
        for (String part : name) {
            written.putText(mistaken ? marked(part) : part);
        }
        written.put(identity).putShort(columns.size());
        for (int i = 0; i < columns.size(); i++) {
            Column column = columns.get(i);
            boolean one = empty || alike.get(folded(column.name)) == 1;
            written.put(column.flags).putText(one ? column.name : column.name + MARK + i)
                    .putInt(column.type).putInt(column.modifier);
        }
        return written.buffer();
    }

    /** A row without columns, old or new or both, with an empty value in the one that was added. */
    private static ByteBuffer filled(ByteBuffer read, ByteBuffer message) {
        Message written = new Message().put(message.get(message.position())).putInt(message.getInt(message.position() + 1));
        while (read.hasRemaining()) {
            written.put(read.get());
            if (read.getShort() != 0) {
                throw new IllegalStateException("a row of a table without columns has some");
            }
            written.putShort(1).put('t').putInt(0);
        }
        return written.buffer();
    }

    /** As Debezium does, by the rules of the JVM's language. */
    private static String folded(String name) {
        return name.toLowerCase();
    }

    /** Whether Debezium finds the table again by what it writes down of each of its rows. */
    private static boolean isReadAgain(List<String> name) {
        try {
            TableId found = TableId.parse(new TableId(null, name.get(0), name.get(1)).toDoubleQuotedString(), false);
            return found != null && name.equals(Arrays.asList(found.schema(), found.table()));
        } catch (RuntimeException thrown) { // it is no name to Debezium
            return false;
        }
    }

    private static String marked(String name) {
        StringBuilder marked = new StringBuilder();
        for (char one : name.toCharArray()) {
            int place = SPECIAL.indexOf(one);
            marked.append(place < 0 ? String.valueOf(one) : MARK + place);
        }
        return marked.toString();
    }

    private static String text(ByteBuffer read) {
        int from = read.position();
        while (read.get() != 0) {
            // up to the end
        }
        byte[] bytes = new byte[read.position() - from - 1];
        read.get(from, bytes);
        return new String(bytes, StandardCharsets.UTF_8);
    }

    @Override
    public ChainedLogicalStreamBuilder defaultOptions(
            ChainedLogicalStreamBuilder builder, Function<Integer, Boolean> hasMinimumServerVersion) {
        return inner.defaultOptions(builder, hasMinimumServerVersion);
    }

    @Override
    public boolean shouldMessageBeSkipped(ByteBuffer message, Lsn received, Lsn start, WalPositionLocator position) {
        return inner.shouldMessageBeSkipped(message, received, start, position);
    }

    @Override
    public void close() {
        inner.close();
    }

    /** A column in the description of a table; `modifier` is PostgreSQL's atttypmod. */
    private record Column(byte flags, String name, int type, int modifier) {
    }

    /** A message of the protocol, written. */
    private static final class Message {

        private final ByteArrayOutputStream bytes = new ByteArrayOutputStream();

        Message put(int one) {
            bytes.write(one);
            return this;
        }

        Message putShort(int number) {
            return put(number >> 8).put(number);
        }

        Message putInt(int number) {
            return putShort(number >> 16).putShort(number);
        }

        Message putText(String text) {
            bytes.writeBytes(text.getBytes(StandardCharsets.UTF_8));
            return put(0);
        }

        ByteBuffer buffer() {
            return ByteBuffer.wrap(bytes.toByteArray());
        }
    }
}
