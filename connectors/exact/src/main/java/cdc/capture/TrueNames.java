package cdc.capture;

import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.connect.data.Field;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.source.SourceRecord;

/** Gives tables and columns that {@link DistinctNames} has renamed their own names, in the records made of them. */
final class TrueNames {

    private static final String MARK = DistinctNames.MARK;

    /** A mark and its place; characters of the name may stand in front that are those of the mark. */
    private static final Pattern MARKED = Pattern.compile("(\u0001*)" + MARK + "([0-9])");

    private static final List<String> IMAGES = List.of("before", "after");
    private static final List<String> NAMES = List.of("schema", "table");

    /** Columns of schemas that are kept: a table has another schema each time the server describes it anew. */
    private static final int MOST = 50_000;

    /** By the very object: each table has one, and to compare two of them takes longer than a row. */
    private final Map<Schema, Shape> seen = new IdentityHashMap<>();
    private int columns;

    /** The record as it would be if Debezium could carry such names: most are what they were. */
    SourceRecord restored(SourceRecord record) {
        if (!(record.value() instanceof Struct value)) {
            return record;
        }
        if (value.schema().field("data_collections") != null) {
            List<Struct> counted = value.getArray("data_collections");
            if (counted != null) {
                counted.forEach(count -> rename(count, "data_collection"));
            }
            return record;
        }
        Shape shape = seen.get(value.schema());
        if (shape == null) {
            columns += columns(value.schema());
            if (columns > MOST) {
                seen.clear();
                columns = columns(value.schema());
            }
            shape = shape(value);
            seen.put(value.schema(), shape);
        }
        if (shape.renamed) {
            NAMES.forEach(name -> rename(value.getStruct("source"), name));
        }
        Schema known = shape.schema;
        if (known == value.schema()) {
            return record;
        }
        Struct renamed = new Struct(known);
        for (Field field : known.fields()) {
            Object held = value.get(field.name());
            renamed.put(field, held instanceof Struct row && IMAGES.contains(field.name()) ? row(row, field.schema()) : held);
        }
        return new SourceRecord(record.sourcePartition(), record.sourceOffset(), record.topic(),
                record.kafkaPartition(), record.keySchema(), record.key(), known, renamed, record.timestamp(),
                record.headers());
    }

    /** What is known of a table's events: how they are to be, and whether the table was given another name. */
    private record Shape(Schema schema, boolean renamed) {
    }

    private static Shape shape(Struct event) {
        boolean renamed = event.schema().field("source") != null && event.get("source") instanceof Struct source
                && NAMES.stream().anyMatch(name -> isMarked(source, name));
        return new Shape(restored(event.schema()), renamed);
    }

    private static boolean isMarked(Struct names, String field) {
        return names.schema().field(field) != null && names.get(field) instanceof String name && name.contains(MARK);
    }

    private static void rename(Struct names, String field) {
        if (isMarked(names, field)) {
            names.put(field, MARKED.matcher(names.getString(field)).replaceAll(found -> Matcher.quoteReplacement(
                    found.group(1) + DistinctNames.SPECIAL.charAt(found.group(2).charAt(0) - '0'))));
        }
    }

    private static int columns(Schema event) {
        Field after = event.field("after");
        return after == null ? 1 : after.schema().fields().size() + 1;
    }

    /** The schema of an event with the images' columns as they are called; itself where they are. */
    private static Schema restored(Schema event) {
        boolean marked = IMAGES.stream().map(event::field)
                .anyMatch(image -> image != null && image.schema().fields().stream()
                        .anyMatch(column -> column.name().contains(MARK)));
        if (!marked) {
            return event;
        }
        SchemaBuilder builder = like(event);
        for (Field field : event.fields()) {
            builder.field(field.name(), IMAGES.contains(field.name()) ? image(field.schema()) : field.schema());
        }
        return builder.build();
    }

    private static Schema image(Schema row) {
        SchemaBuilder builder = like(row);
        for (Field column : row.fields()) {
            String name = own(column);
            if (!name.isEmpty()) {
                builder.field(name, column.schema());
            }
        }
        return builder.build();
    }

    private static SchemaBuilder like(Schema schema) {
        SchemaBuilder builder = SchemaBuilder.struct().name(schema.name()).version(schema.version());
        return schema.isOptional() ? builder.optional() : builder;
    }

    private static Struct row(Struct row, Schema as) {
        Struct renamed = new Struct(as);
        for (Field column : row.schema().fields()) {
            String name = own(column);
            if (!name.isEmpty()) {
                renamed.put(name, row.get(column));
            }
        }
        return renamed;
    }

    /** A column's own name; empty of the one that no table has. */
    private static String own(Field column) {
        int mark = column.name().lastIndexOf(MARK);
        return mark < 0 ? column.name() : column.name().substring(0, mark);
    }
}
