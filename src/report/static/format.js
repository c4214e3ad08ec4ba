"use strict";

// Numbers as the stages print them.

/** `value` with `digits` decimals, rounded as Python rounds: an exact tie goes to the even digit. */
function fixed(value, digits = 3) {
  if (!Number.isFinite(value)) return "n/a";
  const halves = value * 2 ** (digits + 1); // exact; an odd number just where value is a tie
  if (!Number.isInteger(halves) || halves % 2 === 0) return value.toFixed(digits);
  const below = Math.floor(value * 10 ** digits);
  return ((below + (below % 2)) / 10 ** digits).toFixed(digits);
}

/** `0.812 [0.790, 0.834]`, or without the interval where none was computed. */
function withInterval(value, interval) {
  return interval ? `${fixed(value)} [${fixed(interval[0])}, ${fixed(interval[1])}]` : fixed(value);
}

/** `12,345` */
function count(number) {
  return number.toLocaleString("en-US");
}

/** `95%`, `97.5%` */
function percent(share) {
  return `${Number((100 * share).toPrecision(6))}%`;
}

/** `1 finding`, `2 findings`, `2 studies` */
function plural(number, noun) {
  return `${count(number)} ${number === 1 ? noun : several(noun)}`;
}

/** `findings`, `studies` */
function several(noun) {
  return noun.replace(/y$/, "ie") + "s";
}

/** part / whole, NaN where the whole is 0. */
function ratio(part, whole) {
  return whole ? part / whole : NaN;
}
