package cdc.capture;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.debezium.spi.converter.CustomConverter;
import io.debezium.spi.converter.RelationalColumn;
import java.lang.reflect.Proxy;
import java.math.BigDecimal;
import java.util.List;
import java.util.Map;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.errors.DataException;
import org.junit.jupiter.api.Test;

class ExactTextTest {

    private static final RelationalColumn COLUMN = (RelationalColumn) Proxy.newProxyInstance(
            ExactTextTest.class.getClassLoader(), new Class<?>[] {RelationalColumn.class},
            (self, called, given) -> called.getName());

    private SchemaBuilder field;
    private CustomConverter.Converter converter;

    private ExactTextTest() {
        new ExactText().converterFor(COLUMN, (schema, registered) -> {
            field = schema;
            converter = registered;
        });
    }

    @Test
    void textPassesUnchanged() {
        field.build();

        assertEquals("[0:1]={7,8}", converter.convert("[0:1]={7,8}"));
        assertEquals("", converter.convert(""));
        assertNull(converter.convert(null));
    }

    @Test
    void anUnchangedValueCannotBeMistakenForText() {
        field.build();

        assertEquals("\u0001", converter.convert(new Object()));
        assertEquals("\u0001\u0001", converter.convert("\u0001"));
        assertEquals("\u0001\u0001\u0001x", converter.convert("\u0001\u0001x"));
        assertEquals("x\u0001", converter.convert("x\u0001"));
    }

    @Test
    void anythingButTextIsRefusedByName() {
        field.build();

        for (Object value : List.of(1, 1.5, true, new byte[1], BigDecimal.ONE, new java.sql.Date(0))) {
            DataException refused = assertThrows(DataException.class, () -> converter.convert(value));
            assertTrue(refused.getMessage().contains("dataCollection.name of type typeName arrived as "
                    + value.getClass().getName()));
        }
    }

    @Test
    void aFieldHasNoDefault() {
        field.defaultValue(converter.convert(5));
        Schema built = field.build();

        assertNull(built.defaultValue());
        assertTrue(built.isOptional());
        assertEquals(Schema.Type.STRING, built.type());
    }

    @Test
    void whatStandsForADefaultCannotBeStored() {
        Object early = converter.convert("text");
        Schema built = field.build();

        assertThrows(DataException.class, () -> org.apache.kafka.connect.data.ConnectSchema.validateValue(built, early));
    }

    @Test
    void settingsThatChangeTextAreNamedWithTheirRemedy() {
        Map<String, String> good = Map.of("TimeZone", "UTC", "DateStyle", "ISO, DMY", "IntervalStyle", "postgres",
                "extra_float_digits", "3", "bytea_output", "hex", "lc_monetary", "C");
        Map<String, String> berlin = new java.util.HashMap<>(good);
        berlin.put("TimeZone", "Europe/Berlin");
        berlin.remove("bytea_output");

        List<String> wrong = SessionSettings.wrong(berlin, "u", "d");

        assertEquals(List.of(), SessionSettings.wrong(good, "u", "d"));
        assertEquals(2, wrong.size());
        assertTrue(wrong.get(0).contains("-Duser.timezone=UTC"));
        assertTrue(wrong.get(1).contains("ALTER ROLE u IN DATABASE d SET bytea_output = 'hex'"));
    }
}
