/** A buffer of playground/plane/packing.py: the header's entries, and each array as { data, shape, scale }. */
function unpack(buffer) {
  const size = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  const arrays = {};
  for (const [name, { type, shape, scale, offset }] of Object.entries(header.arrays)) {
    const count = shape.reduce((product, n) => product * n, 1);
    const data = new (type === 'uint8' ? Uint8Array : Int16Array)(buffer, 4 + size + offset, count);
    arrays[name] = { data, shape, scale };
  }
  return { ...header, ...arrays };
}

const GONE = 'This is no longer kept: move a slider to run the flow again.';

/**
 * A buffer that is fetched when it is wanted and kept until another is. While one is on its way the newest
 * request waits for its turn; `then` runs when new data has come. What is on show stays until then.
 */
function bufferSlot(then) {
  let wanted = { key: null };
  let busy = false;
  const slot = { data: null, key: null, failed: '' }; // failed: why, in one sentence

  async function pump() {
    if (busy || wanted.key === null || wanted.key === slot.key) return;
    const { key, url } = wanted;
    busy = true;
    counters.loads += 1;
    try {
      const answer = await fetch(located(url));
      const come = answer.ok ? unpack(await answer.arrayBuffer()) : await answer.text();
      if (wanted.key !== null) { // not dropped meanwhile
        if (answer.ok) slot.data = come;
        slot.failed = answer.ok ? '' : answer.status === 503 ? come : GONE;
      }
    } catch {
      slot.failed = 'The server did not answer.';
    }
    busy = false;
    if (wanted.key !== null) {
      slot.key = key; // also when it failed: asking again and again helps nobody
      then();
    }
    pump();
  }

  slot.want = (key, url) => {
    if (key === wanted.key) return;
    wanted = { key, url };
    pump();
  };
  slot.drop = () => {
    wanted = { key: null };
    slot.key = slot.data = null;
    slot.failed = '';
  };
  /** What failed is asked for once more when it is wanted again. */
  slot.again = () => {
    if (!slot.failed) return;
    wanted = { key: null };
    slot.key = null;
  };
  return slot;
}

/** Where a time lies in a falling list of times: the index before it, and how far on the way to the next. */
function bracket(times, t) {
  let low = 0;
  let high = times.length - 1;
  if (high === 0 || t >= times[0]) return [0, 0];
  if (t <= times[high]) return [high - 1, 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (times[middle] >= t) low = middle;
    else high = middle;
  }
  return [low, (times[low] - t) / (times[low] - times[high])];
}

const mix = (a, b, f) => a + (b - a) * f;
