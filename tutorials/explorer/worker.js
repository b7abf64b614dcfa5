// The worker trains, so that the page never waits. A message has an id, which its answers repeat:
//
//     {type: "teacher", id, preset, points, n}                      {id, calls: [[k, error], ...]}
//     {type: "distil", id, preset, points, n, steps, seed, simd}    the same, then as training goes on
//                                                                   {id, step, loss, error, seconds, weights}
//     {type: "stop", id}
//
// Each message ends the work on the one before.

import { makeKernel } from "./kernel.js";
import { Reference, Training } from "./training.js";
import { callsOf, mixtureOf } from "./view.js";

const SLICE = 80; // milliseconds of training between two messages
const MEASURE = 20; // steps between two measurements of the error

let current = null; // the newest message
let known = null; // the newest reference with its calls, and what it belongs to

/** The solutions for a teacher, computed once for its comparison and its training. */
function knownFor(message) {
  const key = JSON.stringify([message.preset, message.points, message.n]);
  if (known?.key !== key) known = { key, reference: new Reference(mixtureOf(message), message.n), calls: [] };
  return known;
}

// A timer would wait 4 ms each time.
const channel = new MessageChannel();
const turn = () =>
  new Promise((resolve) => {
    channel.port1.onmessage = resolve;
    channel.port2.postMessage(null);
  });

async function compareCalls(message) {
  const { reference, calls } = knownFor(message);
  const all = callsOf(message.n).slice(0, -1); // the last is the reference itself
  while (calls.length < all.length) {
    const k = all[calls.length];
    calls.push([k, reference.errorOf(k)]);
    await turn();
    if (current !== message) return;
  }
  postMessage({ id: message.id, calls });
}

async function distil(message) {
  const began = performance.now();
  await compareCalls(message);
  if (current !== message) return;
  const training = new Training(makeKernel(message.simd), knownFor(message).reference, message);
  const { weights } = training.student.network;
  let error = training.error();
  let loss = NaN;
  const report = () => {
    const seconds = (performance.now() - began) / 1000;
    postMessage({ id: message.id, step: training.done, loss, error, seconds, weights: weights.slice() });
  };
  report();
  while (training.done < message.steps) {
    const until = performance.now() + SLICE;
    while (training.done < message.steps && performance.now() < until) {
      loss = training.step();
      if (training.done % MEASURE === 0 || training.done === message.steps) error = training.error();
    }
    report();
    await turn();
    if (current !== message) return;
  }
}

const WORK = { teacher: compareCalls, distil, stop: () => {} };

onmessage = ({ data }) => {
  current = data;
  WORK[data.type](data);
};
