// The last minutes of measurements, kept while the console is open so that the graphs are there when one comes back.

const SAMPLES_MAX = 600; // at 2 s each: 20 minutes

export class History {
  constructor() {
    this.samples = []; // oldest first: {at: ms, ...figures; null where nothing was measured}
  }

  add(sample) {
    this.samples.push(sample);
    if (this.samples.length > SAMPLES_MAX) this.samples.splice(0, this.samples.length - SAMPLES_MAX);
  }
}
