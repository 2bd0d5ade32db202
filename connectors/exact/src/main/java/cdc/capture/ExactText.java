package cdc.capture;

import io.debezium.spi.converter.CustomConverter;
import io.debezium.spi.converter.RelationalColumn;
import java.util.Properties;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.errors.DataException;

/**
 * A Debezium converter that sends every column as PostgreSQL's own text.
 *
 * <p>The text is that of the type's output function, what COPY and psql print, under the connector
 * role's pinned settings. NULL is null. A value that an update did not touch and that the server
 * therefore did not send is the single character U+0001; a real text beginning with U+0001 gets one
 * more in front.
 */
public final class ExactText implements CustomConverter<SchemaBuilder, RelationalColumn> {

    static final String UNCHANGED = "\u0001";

    @Override
    public void configure(Properties properties) {
        // There is nothing to choose: one profile, one form.
    }

    @Override
    public void converterFor(RelationalColumn column, ConverterRegistration<SchemaBuilder> registration) {
        TextField field = new TextField();
        registration.register(field, value -> field.built ? wire(value, column) : TextField.NO_DEFAULT);
    }

    static String wire(Object value, RelationalColumn column) {
        if (value == null) {
            return null;
        }
        // Debezium's marker for an unchanged TOAST value has no class of its own.
        if (value.getClass() == Object.class) {
            return UNCHANGED;
        }
        if (value instanceof String text) {
            return text.startsWith(UNCHANGED) ? UNCHANGED + text : text;
        }
        throw new DataException(column.dataCollection() + "." + column.name() + " of type " + column.typeName()
                + " arrived as " + value.getClass().getName() + ", not as the server's text: this connector must be "
                + ExactConnector.class.getName() + ", and Debezium the version this plugin was built for");
    }

    /**
     * An optional string without a default value.
     *
     * <p>Debezium gives each field its column's DEFAULT, and serialisers then write the DEFAULT where
     * the row has NULL. To do so it converts the DEFAULT before the field is built; what it gets is
     * dropped here, and could not be stored in a row.
     */
    private static final class TextField extends SchemaBuilder {

        private static final Object NO_DEFAULT = new Object();

        private boolean built;

        private TextField() {
            super(Type.STRING);
            optional();
        }

        @Override
        public SchemaBuilder defaultValue(Object value) {
            return this;
        }

        @Override
        public Schema build() {
            built = true;
            return super.build();
        }
    }
}
