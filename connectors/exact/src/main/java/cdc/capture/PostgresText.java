package cdc.capture;

import static io.debezium.connector.postgresql.PostgresValueConverter.NEGATIVE_INFINITY_INSTANT;
import static io.debezium.connector.postgresql.PostgresValueConverter.NEGATIVE_INFINITY_LOCAL_DATE;
import static io.debezium.connector.postgresql.PostgresValueConverter.NEGATIVE_INFINITY_OFFSET_DATE_TIME;
import static io.debezium.connector.postgresql.PostgresValueConverter.POSITIVE_INFINITY_INSTANT;
import static io.debezium.connector.postgresql.PostgresValueConverter.POSITIVE_INFINITY_LOCAL_DATE;
import static io.debezium.connector.postgresql.PostgresValueConverter.POSITIVE_INFINITY_OFFSET_DATE_TIME;

import io.debezium.data.SpecialValueDecimal;
import java.math.BigDecimal;
import java.math.RoundingMode;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.OffsetDateTime;
import java.time.OffsetTime;
import java.time.ZoneOffset;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Locale;
import java.util.stream.Collectors;
import org.postgresql.geometric.PGbox;
import org.postgresql.geometric.PGcircle;
import org.postgresql.geometric.PGline;
import org.postgresql.geometric.PGlseg;
import org.postgresql.geometric.PGpath;
import org.postgresql.geometric.PGpoint;
import org.postgresql.geometric.PGpolygon;
import org.postgresql.jdbc.PgArray;
import org.postgresql.util.PGInterval;

/**
 * Values as Debezium hands them over while streaming, printed as PostgreSQL's output functions do
 * with TimeZone UTC, DateStyle ISO, IntervalStyle postgres, extra_float_digits 1, bytea_output hex
 * and lc_monetary C.
 *
 * <p>Most types arrive as the server's own text. For the others the Java value holds all that the
 * text held, and the text is made again. Anything else is refused.
 */
final class PostgresText {

    private PostgresText() {
    }

    static String of(Object value) {
        if (value instanceof String text) {
            return text;
        }
        // PgArray and numbers keep what they were read from.
        if (value instanceof PgArray || value instanceof Integer || value instanceof Long) {
            return value.toString();
        }
        if (value instanceof Boolean flag) {
            return flag ? "t" : "f";
        }
        if (value instanceof Double number) {
            return FloatText.of(number);
        }
        if (value instanceof Float number) {
            return FloatText.of(number);
        }
        if (value instanceof SpecialValueDecimal number) {
            return numeric(number);
        }
        if (value instanceof BigDecimal amount) {
            return money(amount);
        }
        if (value instanceof byte[] bytes) {
            return "\\x" + HexFormat.of().formatHex(bytes);
        }
        if (value instanceof LocalDate date) {
            return date(date);
        }
        if (value instanceof Instant instant) {
            return timestamp(instant);
        }
        if (value instanceof OffsetDateTime instant) {
            return timestamptz(instant);
        }
        if (value instanceof PGInterval interval) {
            return interval(interval);
        }
        if (value instanceof OffsetTime) {
            throw new InexactValueException("Debezium drops the time zone of a timetz value; store it as time"
                    + " or timestamptz, or exclude the table");
        }
        return geometry(value);
    }

    private static String numeric(SpecialValueDecimal number) {
        return number.getDecimalValue().map(BigDecimal::toPlainString).orElseGet(() -> FloatText.of(number.toDouble()));
    }

    private static String money(BigDecimal amount) {
        String digits = String.format(Locale.ROOT, "%,.2f", amount.abs().setScale(2, RoundingMode.UNNECESSARY));
        return (amount.signum() < 0 ? "-$" : "$") + digits;
    }

    private static String date(LocalDate date) {
        if (date.equals(POSITIVE_INFINITY_LOCAL_DATE)) {
            return "infinity";
        }
        if (date.equals(NEGATIVE_INFINITY_LOCAL_DATE)) {
            return "-infinity";
        }
        return day(date) + era(date);
    }

    private static String timestamp(Instant instant) {
        if (instant == POSITIVE_INFINITY_INSTANT) {
            return "infinity";
        }
        if (instant == NEGATIVE_INFINITY_INSTANT) {
            return "-infinity";
        }
        // A legal timestamp of the year 294247 has the same value as the marker: only its identity
        // tells them apart, and a copy of the marker tells nothing.
        if (instant.equals(POSITIVE_INFINITY_INSTANT)) {
            throw new InexactValueException("294247-01-10 04:00:25.2 cannot be told from infinity");
        }
        LocalDateTime local = LocalDateTime.ofInstant(instant, ZoneOffset.UTC);
        return day(local.toLocalDate()) + " " + clock(local) + era(local.toLocalDate());
    }

    private static String timestamptz(OffsetDateTime instant) {
        if (instant.equals(POSITIVE_INFINITY_OFFSET_DATE_TIME)) {
            return "infinity";
        }
        if (instant.equals(NEGATIVE_INFINITY_OFFSET_DATE_TIME)) {
            return "-infinity";
        }
        LocalDateTime local = instant.withOffsetSameInstant(ZoneOffset.UTC).toLocalDateTime();
        return day(local.toLocalDate()) + " " + clock(local) + "+00" + era(local.toLocalDate());
    }

    /** Year, month and day; Java's year 0 is 1 BC. */
    private static String day(LocalDate date) {
        int year = date.getYear() > 0 ? date.getYear() : 1 - date.getYear();
        return String.format(Locale.ROOT, "%04d-%02d-%02d", year, date.getMonthValue(), date.getDayOfMonth());
    }

    private static String era(LocalDate date) {
        return date.getYear() > 0 ? "" : " BC";
    }

    private static String clock(LocalDateTime time) {
        return String.format(Locale.ROOT, "%02d:%02d:%02d", time.getHour(), time.getMinute(), time.getSecond())
                + fraction(time.getNano() / 1000);
    }

    private static String fraction(int micros) {
        return micros == 0 ? "" : ("." + String.format(Locale.ROOT, "%06d", micros)).replaceFirst("0+$", "");
    }

    /** IntervalStyle postgres: a sign is written where the part before it was negative. */
    private static String interval(PGInterval interval) {
        StringBuilder text = new StringBuilder();
        boolean afterNegative = false;
        int[] parts = {interval.getYears(), interval.getMonths(), interval.getDays()};
        String[] names = {"year", "mon", "day"};
        for (int i = 0; i < parts.length; i++) {
            if (parts[i] != 0) {
                text.append(text.isEmpty() ? "" : " ").append(afterNegative && parts[i] > 0 ? "+" : "");
                text.append(parts[i]).append(' ').append(names[i]).append(parts[i] == 1 ? "" : "s");
                afterNegative = parts[i] < 0;
            }
        }
        int hours = interval.getHours();
        int minutes = interval.getMinutes();
        int seconds = interval.getWholeSeconds();
        int micros = interval.getMicroSeconds();
        if (text.isEmpty() || hours != 0 || minutes != 0 || seconds != 0 || micros != 0) {
            boolean negative = hours < 0 || minutes < 0 || seconds < 0 || micros < 0;
            text.append(text.isEmpty() ? "" : " ").append(negative ? "-" : afterNegative ? "+" : "");
            text.append(String.format(Locale.ROOT, "%02d:%02d:%02d", Math.abs((long) hours), Math.abs(minutes),
                    Math.abs(seconds))).append(fraction(Math.abs(micros)));
        }
        return text.toString();
    }

    private static String geometry(Object value) {
        if (value instanceof PGpoint point) {
            return point(point);
        }
        if (value instanceof PGbox box && box.point != null) {
            return points(box.point);
        }
        if (value instanceof PGlseg segment && segment.point != null) {
            return "[" + points(segment.point) + "]";
        }
        if (value instanceof PGpath path && path.points != null) {
            return path.open ? "[" + points(path.points) + "]" : "(" + points(path.points) + ")";
        }
        if (value instanceof PGpolygon polygon && polygon.points != null) {
            return "(" + points(polygon.points) + ")";
        }
        if (value instanceof PGcircle circle && circle.center != null) {
            return "<" + point(circle.center) + "," + FloatText.of(circle.radius) + ">";
        }
        if (value instanceof PGline line) {
            return "{" + FloatText.of(line.a) + "," + FloatText.of(line.b) + "," + FloatText.of(line.c) + "}";
        }
        throw new InexactValueException("values of " + value.getClass().getName() + " are not known to this plugin");
    }

    private static String point(PGpoint point) {
        return "(" + FloatText.of(point.x) + "," + FloatText.of(point.y) + ")";
    }

    private static String points(PGpoint[] points) {
        return Arrays.stream(points).map(PostgresText::point).collect(Collectors.joining(","));
    }
}
