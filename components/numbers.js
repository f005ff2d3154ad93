// Under every chart a button that saves the numbers it was drawn from, as they stand in Plotly in this browser: a chart
// that has been added to since, or was measured by hand, is saved as it is on show.
() => {
  const plain = html => (html ?? '').replace(/<br\s*\/?>/g, ' ').replace(/<[^>]*>/g, '').trim();

  const quoted = value => {
    if (value === undefined || value === null || Number.isNaN(value)) return '';
    const text = String(value);
    return /[",\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  };

  /** One line per point: the curve, what x and y measure, their values, z in a matrix, error bars, what hovering says. */
  const table = plot => {
    const quantity = axis => plain(plot._fullLayout[axis[0] + 'axis' + axis.slice(1)]?.title?.text);
    const lines = [['curve', 'quantity_x', 'x', 'quantity_y', 'y', 'z', 'error_up', 'error_down', 'note']];
    plot._fullData.forEach((trace, index) => {
      const name = plain(trace.name) || 'curve ' + (index + 1);
      const axes = [quantity(trace.xaxis ?? 'x'), quantity(trace.yaxis ?? 'y')];
      if (trace.z) { // a matrix
        trace.z.forEach((row, i) => Array.from(row).forEach((value, j) => {
          lines.push([name, axes[0], trace.x?.[j] ?? j, axes[1], trace.y?.[i] ?? i, value, '', '', '']);
        }));
        return;
      }
      const [x, y] = [trace.x ?? [], trace.y ?? []];
      for (let i = 0; i < Math.max(x.length, y.length); i += 1) {
        const up = trace.error_y?.array?.[i], down = trace.error_y?.arrayminus?.[i] ?? up;
        const note = [trace.customdata?.[i] ?? []].flat().filter(said => typeof said === 'string').join(' ');
        lines.push([name, axes[0], x[i] ?? i, axes[1], y[i], '', up, down, note.replace(/^, /, '')]);
      }
    });
    return lines.map(line => line.map(quoted).join(',')).join('\r\n') + '\r\n';
  };

  const save = plot => {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([table(plot)], { type: 'text/csv;charset=utf-8' }));
    link.download = (plot.closest('[id]:not(.js-plotly-plot)')?.id ?? 'chart') + '.csv';
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };

  let asked = false;
  const look = () => {
    asked = false;
    for (const plot of document.querySelectorAll('.js-plotly-plot')) {
      if (plot._fullData === undefined || plot.nextElementSibling?.className === 'dp-numbers') continue;
      const button = document.createElement('button');
      Object.assign(button, { className: 'dp-numbers', type: 'button', textContent: 'numbers as CSV' });
      button.addEventListener('click', () => save(plot));
      plot.after(button);
    }
  };
  new MutationObserver(() => {
    if (asked) return;
    asked = true;
    setTimeout(look, 300);
  }).observe(document.body, { childList: true, subtree: true });
}
