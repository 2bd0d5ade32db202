package cdc.capture;

import java.math.BigDecimal;
import java.math.MathContext;
import java.math.RoundingMode;

/**
 * Floating-point numbers as PostgreSQL 12 and later print them with extra_float_digits 1.
 *
 * <p>The digits are the fewest that read back as the same number, and of these the nearest to it; a
 * decimal exactly half-way between two numbers is not used (src/common/d2s.c,
 * STRICTLY_SHORTEST 0). Java's own text is not the shortest before JDK 19.
 */
final class FloatText {

    private FloatText() {
    }

    static String of(double number) {
        if (Double.isNaN(number) || Double.isInfinite(number) || number == 0) {
            return special(number);
        }
        double value = Math.abs(number);
        BigDecimal exact = new BigDecimal(value);
        BigDecimal below = half(exact, new BigDecimal(Math.nextDown(value)));
        // Above the largest number the grid goes on as if there were no end.
        BigDecimal above = value == Double.MAX_VALUE
                ? exact.add(exact.subtract(below))
                : half(exact, new BigDecimal(Math.nextUp(value)));
        // Every decimal of 15 digits that reads back as a normal number is the only one of its length.
        int least = value < Double.MIN_NORMAL ? 1 : 15;
        return layout(number < 0, shortest(exact, below, above, least, 17), 15);
    }

    static String of(float number) {
        if (Float.isNaN(number) || Float.isInfinite(number) || number == 0) {
            return special(number);
        }
        float value = Math.abs(number);
        BigDecimal exact = new BigDecimal(value);
        BigDecimal below = half(exact, new BigDecimal(Math.nextDown(value)));
        BigDecimal above = value == Float.MAX_VALUE
                ? exact.add(exact.subtract(below))
                : half(exact, new BigDecimal(Math.nextUp(value)));
        int least = value < Float.MIN_NORMAL ? 1 : 6;
        return layout(number < 0, shortest(exact, below, above, least, 9), 6);
    }

    private static String special(double number) {
        if (Double.isNaN(number)) {
            return "NaN";
        }
        if (Double.isInfinite(number)) {
            return number > 0 ? "Infinity" : "-Infinity";
        }
        return 1 / number > 0 ? "0" : "-0";
    }

    private static BigDecimal half(BigDecimal a, BigDecimal b) {
        return a.add(b).divide(BigDecimal.valueOf(2));
    }

    /** The shortest decimal strictly between the bounds, nearest to the exact value. */
    private static BigDecimal shortest(BigDecimal exact, BigDecimal below, BigDecimal above, int least, int most) {
        for (int digits = least; digits < most; digits++) {
            for (RoundingMode mode : new RoundingMode[] {RoundingMode.HALF_EVEN, RoundingMode.UP, RoundingMode.DOWN}) {
                BigDecimal rounded = exact.round(new MathContext(digits, mode));
                if (rounded.compareTo(below) > 0 && rounded.compareTo(above) < 0) {
                    return rounded.stripTrailingZeros();
                }
            }
        }
        return exact.round(new MathContext(most, RoundingMode.HALF_EVEN)).stripTrailingZeros();
    }

    /** Plain digits while the exponent is at least -4 and below `limit`, else d.ddde+xx. */
    private static String layout(boolean negative, BigDecimal value, int limit) {
        int exponent = value.precision() - value.scale() - 1;
        String text;
        if (exponent >= -4 && exponent < limit) {
            text = value.toPlainString();
        } else {
            String digits = value.unscaledValue().toString();
            String mantissa = digits.length() == 1 ? digits : digits.charAt(0) + "." + digits.substring(1);
            int size = Math.abs(exponent);
            text = mantissa + (exponent < 0 ? "e-" : "e+") + (size < 10 ? "0" : "") + size;
        }
        return negative ? "-" + text : text;
    }
}
