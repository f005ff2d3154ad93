// Drawing that knows nothing of the page: data in, strokes out.

/** "#rrggbb" or "rgb(...)" as three bytes. */
function bytes(colour) {
  const parts = colour.startsWith('#')
    ? [1, 3, 5].map(i => parseInt(colour.slice(i, i + 2), 16))
    : colour.match(/[0-9.]+/g).slice(0, 3).map(Number);
  return parts.length === 3 && parts.every(Number.isFinite) ? parts : [127, 127, 127];
}

const faded = ([r, g, b], alpha) => 'rgb(' + r + ' ' + g + ' ' + b + ' / ' + alpha + ')';
const blend = (a, b, f) => a.map((v, i) => Math.round(mix(v, b[i], f)));

/**
 * Round dots written straight into pixels: with thousands of them this is several times as fast as paths, with or
 * without a GPU, and their edges stay smooth at every subpixel position.
 */
function makeDots(canvas) {
  const context = canvas.getContext('2d', { willReadFrequently: true });
  let image = null;
  return {
    clear() {
      if (!image || image.width !== canvas.width || image.height !== canvas.height) {
        image = context.createImageData(canvas.width, canvas.height);
      } else {
        image.data.fill(0);
      }
    },
    /** A dot of this radius at (x, y) in pixels. */
    add(x, y, [r, g, b], radius, opacity) {
      const { data, width, height } = image;
      const reach = radius + 0.5;
      const left = Math.max(0, Math.ceil(x - reach));
      const right = Math.min(width - 1, Math.floor(x + reach));
      const top = Math.max(0, Math.ceil(y - reach));
      const bottom = Math.min(height - 1, Math.floor(y + reach));
      for (let row = top; row <= bottom; row += 1) {
        for (let column = left; column <= right; column += 1) {
          const distance = Math.sqrt((column - x) ** 2 + (row - y) ** 2);
          const cover = Math.min(1, reach - distance) * opacity;
          if (cover <= 0) continue;
          const at = 4 * (row * width + column);
          const alpha = cover + data[at + 3] / 255 * (1 - cover);
          const weight = cover / alpha;
          data[at] += (r - data[at]) * weight;
          data[at + 1] += (g - data[at + 1]) * weight;
          data[at + 2] += (b - data[at + 2]) * weight;
          data[at + 3] = 255 * alpha;
        }
      }
    },
    show() {
      context.putImageData(image, 0, 0);
    },
  };
}

/** Frames [T, H, W] at a time in between, as H * W numbers. */
function framesAt({ data, shape: [, height, width] }, [k, f]) {
  const size = height * width;
  const field = new Float32Array(size);
  const last = data.length - size;
  const a = Math.min(k * size, last);
  const b = Math.min(a + size, last);
  for (let i = 0; i < size; i += 1) field[i] = mix(data[a + i], data[b + i], f);
  return field;
}

/**
 * Densities [T, H, W] at a time in between. They travel as 255 sqrt(density / maximum) by frame; the densities
 * themselves are mixed, as they are seen in the zoomed view. Gives { field, top }: H * W numbers on that scale again,
 * and the density that 255 stands for.
 */
function densityAt({ data, shape: [, height, width] }, { maxima, zoom }, [k, f], dim = 2) {
  const size = height * width;
  const next = Math.min(k + 1, maxima.length - 1);
  const seen = frame => maxima[frame] * (zoom?.[frame] ?? 1) ** dim;
  const [p, q] = [(1 - f) * seen(k) / 65025, f * seen(next) / 65025];
  const field = new Float32Array(size);
  let top = 1e-30;
  for (let i = 0; i < size; i += 1) {
    field[i] = p * data[k * size + i] ** 2 + q * data[next * size + i] ** 2;
    if (field[i] > top) top = field[i];
  }
  for (let i = 0; i < size; i += 1) field[i] = 255 * Math.sqrt(field[i] / top);
  return { field, top: top / mix(zoom?.[k] ?? 1, zoom?.[next] ?? 1, f) ** dim };
}

/** Round numbers for an axis from -limit to limit, three to six on each side of 0 or fewer. */
function ticksTo(limit) {
  const rough = limit / 3;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find(m => m * unit >= rough * 0.9);
  const count = Math.floor(limit / step);
  return Array.from({ length: 2 * count + 1 }, (_, i) => Number(((i - count) * step).toPrecision(6)));
}

const signed = number => String(number).replace('-', '−');

/** A field of numbers in 0..255 as opacity of one colour; row 0 is at the bottom. */
function paintHeat(canvas, field, width, height, [r, g, b], strongest) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d');
  const image = context.createImageData(width, height);
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const at = 4 * ((height - 1 - row) * width + column);
      image.data[at] = r;
      image.data[at + 1] = g;
      image.data[at + 2] = b;
      image.data[at + 3] = strongest * field[row * width + column];
    }
  }
  context.putImageData(image, 0, 0);
}

/** Lines of equal value of a field on cell centres (marching squares), as one path. `place(i, j)` gives pixels. */
function contour(context, field, width, height, level, place) {
  context.beginPath();
  for (let j = 0; j < height - 1; j += 1) {
    for (let i = 0; i < width - 1; i += 1) {
      const at = j * width + i;
      const corners = [field[at], field[at + 1], field[at + width + 1], field[at + width]];
      const above = corners.map(v => v > level);
      if (above[0] === above[1] && above[1] === above[2] && above[2] === above[3]) continue;
      const cut = [];
      const cross = (a, b, dx, dy, ux, uy) => {
        if (above[a] === above[b]) return;
        const f = (level - corners[a]) / (corners[b] - corners[a]);
        cut.push(place(i + dx + f * ux, j + dy + f * uy));
      };
      cross(0, 1, 0, 0, 1, 0);
      cross(1, 2, 1, 0, 0, 1);
      cross(3, 2, 0, 1, 1, 0);
      cross(0, 3, 0, 0, 0, 1);
      for (let c = 0; c + 1 < cut.length; c += 2) {
        context.moveTo(cut[c][0], cut[c][1]);
        context.lineTo(cut[c + 1][0], cut[c + 1][1]);
      }
    }
  }
  context.stroke();
}

/** An arrow from (x, y) by (dx, dy) pixels, added to the current path. */
function arrow(context, x, y, dx, dy) {
  const length = Math.hypot(dx, dy);
  if (length < 1) return;
  const head = Math.min(0.4 * length, 0.16 * length + 3);
  const [ux, uy] = [dx / length, dy / length];
  const [tipX, tipY] = [x + dx, y + dy];
  context.moveTo(x, y);
  context.lineTo(tipX, tipY);
  context.moveTo(tipX - head * (ux + 0.5 * uy), tipY - head * (uy - 0.5 * ux));
  context.lineTo(tipX, tipY);
  context.lineTo(tipX - head * (ux - 0.5 * uy), tipY - head * (uy + 0.5 * ux));
}
