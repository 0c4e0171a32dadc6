"use strict";
(() => {
  const figures = new Map(JSON.parse(document.getElementById("figures").textContent).map((one) => [one.key, one]));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const settings = { responsive: true, displaylogo: false, toImageButtonOptions: { format: "svg" },
    displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
    modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]] };

  function template() {
    const css = getComputedStyle(document.documentElement);
    const [ink, soft, line, card] = ["--ink", "--soft", "--line", "--card"].map((name) => css.getPropertyValue(name).trim());
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, tickcolor: line, automargin: true,
      tickfont: { color: soft }, title: { font: { color: soft, size: 13 }, standoff: 8 } };
    return { layout: { paper_bgcolor: card, plot_bgcolor: card,
      font: { family: getComputedStyle(document.body).fontFamily, color: ink, size: 12 },
      xaxis: axis, yaxis: axis, hoverlabel: { bgcolor: card, bordercolor: soft, font: { color: ink, size: 13 }, align: "left" },
      legend: { bgcolor: "rgba(0,0,0,0)", font: { color: soft } }, annotationdefaults: { font: { color: soft, size: 13 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink }, coloraxis: { colorbar: { outlinewidth: 0 } },
      shapedefaults: { line: { color: soft } } } };
  }

  function narrowed(layout) {
    // Drags that zoom would keep a finger from scrolling the page.
    const touch = matchMedia("(pointer: coarse)").matches;
    return { ...layout, template: template(), dragmode: touch ? false : layout.dragmode };
  }

  function draw(figure) {
    const place = document.getElementById("figure-" + figure.key);
    return Plotly.react(place, figure.shown.data, narrowed(figure.shown.layout), settings).then(() => {
      if (!place.watched) {
        place.watched = true;
        const kind = (figure.shown.layout.meta || {}).kind;
        if (kind === "gantt") highlight(place, microbatch, bars);
        if (kind === "lines") highlight(place, (point) => point.curveNumber, lines);
        place.on("plotly_click", (event) => {
          const link = event.points[0].customdata && event.points[0].customdata.link;
          if (link) location.href = link;
        });
      }
    });
  }

  // What belongs to the point under the pointer stands out for as long as it is there. By style alone: a redrawing
  // would end the hover that it answers.
  function highlight(place, what, parts) {
    let waiting = 0;
    const show = (chosen) => {
      for (const [element, belongs] of parts(place)) element.style.opacity = chosen === null || belongs === chosen ? "" : 0.15;
    };
    place.on("plotly_hover", (event) => { clearTimeout(waiting); show(what(event.points[0]) ?? null); });
    place.on("plotly_unhover", () => { clearTimeout(waiting); waiting = setTimeout(() => show(null), 100); });
  }
  const traces = (place, kind) => [...place.querySelectorAll(`.${kind} .trace`)].map((node) => [node, node.__data__[0].trace]);
  const microbatch = (point) => point.customdata[1];
  const bars = (place) => traces(place, "barlayer").flatMap(([node, trace]) =>
    [...node.querySelectorAll(".point")].map((bar) => [bar, trace.customdata[bar.__data__.i][1]]));
  const lines = (place) => traces(place, "scatterlayer").map(([node, trace]) => [node, trace.index]);

  for (const control of document.querySelectorAll("[data-figure]")) {
    control.addEventListener("input", () => {
      const figure = figures.get(control.dataset.figure), index = Number(control.value);
      figure.shown = figure.variants[index];
      if (control.dataset.labels) control.nextElementSibling.value = JSON.parse(control.dataset.labels)[index];
      draw(figure);
    });
  }
  const drawAll = () => Promise.all([...figures.values()].map(draw));
  dark.addEventListener("change", drawAll);

  // On paper figures are as wide as the sheet, on white. Printing does not wait for a redrawing that takes its time, so
  // all of it happens before the event ends.
  const PAPER = 670; // CSS pixels between the borders of a section, on A4 and on letter
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.printed = "true";
    for (const figure of figures.values()) {
      const place = document.getElementById("figure-" + figure.key);
      place.style.width = PAPER + "px";
      Plotly.react(place, figure.shown.data, { ...narrowed(figure.shown.layout), autosize: false, width: PAPER }, settings);
    }
  });
  addEventListener("afterprint", () => {
    delete document.documentElement.dataset.printed;
    const places = [...figures.keys()].map((key) => document.getElementById("figure-" + key));
    for (const place of places) place.style.width = "";
    drawAll().then(() => places.forEach((place) => Plotly.Plots.resize(place)));
  });
  drawAll().then(() => { document.documentElement.dataset.drawn = "true"; });
})();
