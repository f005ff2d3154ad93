const slider = find('input');
const slot = pictureSlot(find('.picture'));
let film = null;

/** An SVG path over t in [0, 1] of numbers between 0 and `top`. */
function curve(times, values, top) {
  return times.map((t, i) => (i ? 'L' : 'M') + (100 * t).toFixed(2) + ' ' + (100 - 100 * values[i] / top).toFixed(2))
    .join(' ');
}

/** Three decimals, with a true minus sign. */
const decimal = number => number.toFixed(3).replace('-', '−');

function look() {
  const k = Number(slider.value);
  const { url, times, alpha, sigma, log_snr: logSnr } = film;
  const t = times[k];
  const infinite = alpha[k] > sigma[k] ? '∞' : '−∞';
  find('.t').textContent = decimal(t);
  find('.flow').textContent = decimal(1 - t);
  find('.alpha').textContent = decimal(alpha[k]);
  find('.sigma').textContent = decimal(sigma[k]);
  find('.snr').textContent = logSnr[k] === null ? infinite : decimal(logSnr[k]);
  find('.now').setAttribute('d', 'M' + 100 * t + ' 0 V100');
  slider.setAttribute('aria-valuetext', 't = ' + decimal(t));
  slot.show(url + k + '.png', 'The picture at t = ' + decimal(t));
}

function load() {
  film = props.value;
  const frames = film?.frames ?? 0;
  find('.noising').hidden = frames === 0;
  find('.note').textContent = film?.note ?? '';
  if (frames === 0) return;
  const top = Math.max(1, ...film.alpha, ...film.sigma);
  find('.alpha-curve').setAttribute('d', curve(film.times, film.alpha, top));
  find('.sigma-curve').setAttribute('d', curve(film.times, film.sigma, top));
  find('.top').textContent = top > 1.001 ? 'scale: 0 to ' + top.toFixed(1) : '';
  slider.max = frames - 1;
  look();
}
slider.addEventListener('input', look);
watch('value', load);
load();
