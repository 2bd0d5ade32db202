package cdc.capture;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import org.junit.jupiter.api.Test;

class ProofTest {

    private static Object asSent(Proof.Sample sample, String text) {
        return text == null ? new Object() : text;
    }

    @Test
    void whatArrivesAsSentIsProven() {
        assertEquals(List.of(), Proof.wrong(ProofTest::asSent));
    }

    @Test
    void everyAlteredValueIsNamed() {
        List<String> wrong = Proof.wrong((sample, text) -> text != null && sample.type().equals("bit varying") ? "1"
                : asSent(sample, text));

        assertEquals(List.of("bit varying 0001 arrives as 1"), wrong);
    }

    @Test
    void anObjectOfAnotherClassIsNamed() {
        List<String> wrong = Proof.wrong((sample, text) -> text != null && sample.type().equals("bigint") ? 7L
                : asSent(sample, text));

        assertEquals(List.of("bigint -9223372036854775808 arrives as java.lang.Long"), wrong);
    }

    @Test
    void aPlaceholderThatIsTextIsNoMarker() {
        List<String> wrong = Proof.wrong((sample, text) -> text == null ? "__debezium_unavailable_value" : text);

        assertTrue(wrong.contains("an unchanged integer[] cannot be told from a value"));
    }

    @Test
    void aDebeziumThatHasNoSuchMethodIsNamed() {
        List<String> wrong = Proof.wrong((sample, text) -> {
            throw new NoSuchMethodError("getValue");
        });

        assertTrue(wrong.get(0).contains("NoSuchMethodError"));
    }
}
