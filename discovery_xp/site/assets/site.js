// Figures that answer, and the choice of what is shown.  Without this file, or without Plotly,
// pages show the same figures as images, and all rows.
'use strict';
(() => {
  const form = document.querySelector('form.controls');
  const plots = [];
  const MOST_IN_LEGEND = 4; // on a narrow window

  // What is ticked: a set of words for each key.  Words that no box is there for are shown.
  const chosen = () => {
    const sets = {};
    for (const box of form ? form.querySelectorAll('input[type=checkbox]') : []) {
      sets[box.name] = sets[box.name] || { known: new Set(), ticked: new Set() };
      sets[box.name].known.add(box.value);
      if (box.checked) sets[box.name].ticked.add(box.value);
    }
    return sets;
  };

  const isShown = (tags, sets) => Object.entries(sets).every(([key, { known, ticked }]) => {
    const word = (tags || {})[key];
    return word === undefined || !known.has(word) || ticked.has(word);
  });

  // ---------------------------------------------------------------- figures

  const colours = () => {
    const style = getComputedStyle(document.body);
    return ['--paper', '--ink', '--line'].map((name) => style.getPropertyValue(name).trim());
  };

  const layoutOf = (layout) => {
    const [paper, ink, line] = colours();
    const axis = (own) => ({ gridcolor: line, zerolinecolor: line, linecolor: line, ...own });
    return {
      ...layout,
      xaxis: axis(layout.xaxis),
      yaxis: axis(layout.yaxis),
      paper_bgcolor: paper,
      plot_bgcolor: paper,
      font: { color: ink, family: getComputedStyle(document.body).fontFamily },
      margin: { l: 60, r: 15, t: 35, b: 60 },
      legend: { orientation: 'h', y: 1.02, yanchor: 'bottom', x: 0, itemwidth: 30 },
      hovermode: 'closest',
    };
  };

  const pick = (values, places) =>
    Array.isArray(values) ? places.map((place) => values[place]) : values;

  // A trace with the points that are chosen; one of which nothing is left isn't drawn.
  const traceOf = (plot, number, sets) => {
    const trace = { ...plot.data[number] };
    const y = plot.choice === null ? trace.y : plot.choices[plot.choice].y[number];
    const meta = trace.meta || {};
    if (!meta.points) return { ...trace, y, visible: isShown(meta.tags, sets) };
    const places = meta.points.map((_, place) => place)
      .filter((place) => isShown(meta.points[place], sets));
    const twoLevels = Array.isArray(trace.x) && Array.isArray(trace.x[0]);
    const error = trace.error_y && {
      ...trace.error_y,
      array: pick(trace.error_y.array, places),
      arrayminus: pick(trace.error_y.arrayminus, places),
    };
    return {
      ...trace,
      x: twoLevels ? trace.x.map((level) => pick(level, places)) : pick(trace.x, places),
      y: pick(y, places),
      text: pick(trace.text, places),
      ...(error ? { error_y: error } : {}),
      meta: { ...meta, pages: pick(meta.pages, places) },
      visible: places.length > 0,
    };
  };

  const draw = (plot) => {
    const sets = chosen();
    const layout = layoutOf(plot.layout);
    // A long legend would leave a phone no room for the figure: a tap on a point says the same.
    layout.showlegend = plot.canvas.clientWidth > 600 || plot.data.length <= MOST_IN_LEGEND;
    for (const name of plot.scales) {
      layout[`${name}axis`] = { ...layout[`${name}axis`], type: plot.types[name] };
      if (plot.types[name] === 'log') delete layout[`${name}axis`].rangemode;
    }
    if (plot.choice !== null) {
      layout.yaxis = { ...layout.yaxis, title: { text: plot.choices[plot.choice].words } };
    }
    const traces = plot.data.map((_, number) => traceOf(plot, number, sets));
    window.Plotly.react(plot.canvas, traces, layout, { responsive: true, displaylogo: false });
  };

  const button = (plot, name) => {
    const made = document.createElement('button');
    made.type = 'button';
    const label = () => {
      const other = plot.types[name] === 'log' ? 'linear' : 'logarithmic';
      made.textContent = `${name} axis: make it ${other}`;
    };
    made.dataset.axis = name;
    made.addEventListener('click', () => {
      plot.types[name] = plot.types[name] === 'log' ? 'linear' : 'log';
      label();
      draw(plot);
    });
    label();
    return made;
  };

  const selection = (plot) => {
    const made = document.createElement('select');
    made.setAttribute('aria-label', 'What is on the y axis');
    plot.choices.forEach(({ words }, number) => made.append(new Option(words, number)));
    made.addEventListener('change', () => {
      plot.choice = Number(made.value);
      draw(plot);
    });
    return made;
  };

  const begin = (figure) => {
    const script = figure.querySelector('script[type="application/json"]');
    const canvas = figure.querySelector('.canvas');
    const tools = figure.querySelector('.tools');
    const plot = { ...JSON.parse(script.textContent), canvas, types: {} };
    plot.choice = plot.choices.length ? 0 : null;
    for (const name of plot.scales) {
      plot.types[name] = (plot.layout[`${name}axis`] || {}).type === 'log' ? 'log' : 'linear';
      tools.append(button(plot, name));
    }
    if (plot.choices.length) tools.append(selection(plot));
    tools.hidden = tools.children.length === 0;
    canvas.hidden = false;
    for (const image of figure.querySelectorAll('picture, .image')) image.hidden = true;
    plots.push(plot);
    draw(plot);
    // A point is of a run: its page is a click away.
    canvas.on('plotly_click', (event) => {
      const point = event.points[0];
      const meta = point.data.meta || {};
      const page = meta.page || (meta.pages || [])[point.pointNumber];
      if (page) window.location.assign(page);
    });
  };

  // ---------------------------------------------------------------- rows

  const chooseRows = () => {
    const sets = chosen();
    let hidden = 0;
    for (const row of document.querySelectorAll('tr[data-backend]')) {
      const isLeftOut = !isShown(row.dataset, sets);
      row.classList.toggle('is-left-out', isLeftOut);
      hidden += isLeftOut ? 1 : 0;
    }
    const note = form && form.querySelector('.note');
    if (note) note.textContent = hidden ? `${hidden} rows are left out` : '';
  };

  const chooseAll = () => {
    chooseRows();
    plots.forEach(draw);
  };

  document.addEventListener('DOMContentLoaded', () => {
    if (form && form.querySelector('input')) {
      form.hidden = false;
      form.addEventListener('change', chooseAll);
      form.addEventListener('submit', (event) => event.preventDefault());
    }
    chooseRows(); // a browser may keep what was ticked
    if (!window.Plotly) return;
    document.querySelectorAll('figure.plot:has(script)').forEach(begin);
    window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => plots.forEach(draw));
  });
})();
