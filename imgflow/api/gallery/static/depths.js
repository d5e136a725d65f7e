// The scale of a depth slider: whole steps that stand for depths, exact at both ends.

const MOST_STEPS = 2000;

const MOST_DECIMALS = 12;

/** Decimals that a number is written with; nine digits of it, since steps are differences of depths. */
function decimalsOf(number) {
  const rounded = Number(number.toPrecision(9));
  let decimals = 0;
  while (decimals < MOST_DECIMALS && Number(rounded.toFixed(decimals)) !== rounded) decimals += 1;
  return decimals;
}

export class Scale {
  constructor({ rows, min, max, step }) {
    this.rows = rows;
    this.min = min;
    this.max = max;
    this.steps = Math.max(1, Math.min(rows - 1, MOST_STEPS));
    const smallest = step > 0 ? step : (max - min) / this.steps;
    this.decimals = Math.max(decimalsOf(min), decimalsOf(smallest));
  }

  /** The depth of a step, as it is written in the file where its depths are even. */
  depth(step) {
    if (step <= 0) return String(this.min);
    if (step >= this.steps) return String(this.max);
    return this.text(this.min + ((this.max - this.min) * step) / this.steps);
  }

  text(depth) {
    return depth.toFixed(this.decimals);
  }

  /** The nearest step to a depth. */
  step(depth) {
    if (this.max === this.min) return 0;
    const step = Math.round(((depth - this.min) / (this.max - this.min)) * this.steps);
    return Math.max(0, Math.min(this.steps, step));
  }

  /** How many steps so many rows take, at least one. */
  stepsOf(rows) {
    return Math.max(1, Math.min(this.steps, Math.floor((this.steps * rows) / this.rows)));
  }
}
