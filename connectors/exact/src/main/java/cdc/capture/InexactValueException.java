package cdc.capture;

import org.apache.kafka.connect.errors.DataException;

/** A value whose exact PostgreSQL text cannot be known from what Debezium hands over. */
final class InexactValueException extends DataException {

    private static final long serialVersionUID = 1L;

    InexactValueException(String message) {
        super(message);
    }
}
