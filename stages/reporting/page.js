"use strict";
// The gallery: sliders that fade between an image and the masks on it, order, filters. The page is readable without it.
(() => {
  const gallery = document.getElementById("gallery");
  if (!gallery) return;
  const pictures = [...gallery.querySelectorAll(".picture")];
  const tool = (id) => document.getElementById(id);

  // 0 is the bare image; layer k is full at k and gone one step to either side.
  function show(picture) {
    const at = Number(picture.querySelector(".stop").value);
    const strength = Number(tool("strength").value);
    ["teacher", "student", "truth"].forEach((name, index) => {
      for (const layer of picture.querySelectorAll(`.layer.${name}`)) {
        layer.style.opacity = Math.max(0, 1 - Math.abs(at - index - 1)) * strength;
      }
    });
    for (const boxes of picture.querySelectorAll(".boxes")) {
      boxes.style.opacity = tool("boxes").checked ? Math.max(0, 1 - at) : 0;
    }
  }

  function tell(slider) {
    const stops = slider.dataset.stops.split(",");
    const at = Number(slider.value);
    const below = Math.floor(at + 0.1), above = Math.ceil(at - 0.1);
    const said = below >= above ? stops[Math.round(at)] : `${stops[below]} → ${stops[above]}`;
    slider.setAttribute("aria-valuetext", said);
    slider.parentElement.querySelector("output").textContent = said;
  }

  // The pointer can stop anywhere; a key moves to the next stop.
  function step(event) {
    const slider = event.target, at = Number(slider.value);
    const forward = ["ArrowRight", "ArrowUp"].includes(event.key), back = ["ArrowLeft", "ArrowDown"].includes(event.key);
    if (!forward && !back) return;
    event.preventDefault();
    slider.value = forward ? Math.floor(at + 1.001) : Math.ceil(at - 1.001);
    slider.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function arrange() {
    const order = tool("sort").value, key = order.replace("-", ""), sign = order === key ? -1 : 1;
    const error = (picture) => (picture.dataset.error === "" ? -1 : Number(picture.dataset.error));
    const value = (picture) => (key === "error" ? error(picture) : Number(picture.dataset[key]));
    const byTitle = (a, b) => (a.dataset.title < b.dataset.title ? -1 : Number(a.dataset.title > b.dataset.title));
    const wrong = (picture) => Number(picture.dataset.falseNegatives) + Number(picture.dataset.falsePositives);
    const byValue = (a, b) => sign * (value(a) - value(b)) || sign * (wrong(a) - wrong(b)) || byTitle(a, b);
    const compare = key === "title" ? byTitle : byValue;
    gallery.append(...pictures.sort(compare));
    const split = tool("split").value, name = tool("class").value;
    for (const picture of pictures) {
      picture.hidden =
        (split !== "" && picture.dataset.split !== split) ||
        (name !== "" && !JSON.parse(picture.dataset.classes).includes(name));
    }
    const shown = pictures.filter((picture) => !picture.hidden).length;
    tool("count").textContent = shown === pictures.length ? `${shown} shown` : `${shown} of ${pictures.length} shown`;
  }

  // Masks at other thresholds, from the probabilities: an image per view, the classes below each other.
  const range = tool("threshold"), about = range && JSON.parse(range.dataset.about);
  let chosen = null; // an index into about.thresholds per class; null: argmax, as the student's masks are

  async function probabilities(canvas) {
    if (!canvas.shares) {
      const image = new Image(), scratch = document.createElement("canvas");
      image.src = canvas.dataset.shares;
      await image.decode();
      [scratch.width, scratch.height] = [image.width, image.height];
      const context = scratch.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      canvas.shares = context.getImageData(0, 0, image.width, image.height).data.filter((_, index) => index % 4 === 0);
      [canvas.width, canvas.height] = [image.width, image.height / about.names.length];
    }
    return canvas.shares;
  }

  // As stages/student/decision.py: of the classes that reach their threshold the one with the largest ratio.
  function labelsAt(shares, size, least) {
    const labels = new Uint8Array(size), best = new Float32Array(size);
    least.forEach((threshold, index) => {
      for (let at = 0, from = index * size; at < size; at++, from++) {
        const ratio = shares[from] / threshold;
        if (ratio >= 1 && ratio > best[at]) { best[at] = ratio; labels[at] = index + 1; }
      }
    });
    return labels;
  }

  async function paint(canvas) {
    const shares = await probabilities(canvas), { width, height } = canvas;
    if (!chosen) return; // set back to argmax while the image was decoded
    const least = chosen.map((step) => Math.round(about.thresholds[step] * about.steps));
    const labels = labelsAt(shares, width * height, least), made = new ImageData(width, height);
    for (let at = 0; at < labels.length; at++) {
      const label = labels[at], x = at % width;
      if (!label) continue;
      const rim = [x ? at - 1 : at, x < width - 1 ? at + 1 : at, at - width, at + width]
        .some((next) => labels[next] !== undefined && labels[next] !== label);
      made.data.set([...about.colours[label - 1], rim ? 255 : 100], 4 * at);
    }
    canvas.getContext("2d").putImageData(made, 0, 0);
  }

  function toThresholds() {
    const which = tool("which").value, said = (value) => (value === null ? "–" : Number(value.toPrecision(3)));
    const step = chosen && (which === "" ? new Set(chosen).size === 1 && chosen[0] : chosen[which]);
    tool("threshold-said").textContent = !chosen ? "argmax" : step === false ? "several" : about.thresholds[step];
    tool("threshold-gives").textContent = !chosen ? "" : about.names.map((name, index) => {
      const own = about.classes[index], at = chosen[index];
      return `${name} at ${about.thresholds[at]}: recall ${said(own.recall_defects[at])}, ` +
        `precision ${said(own.precision_defects[at])}, ${said(own.false_positives_per_image[at])} false positives per image`;
    }).join("; ");
    for (const picture of pictures) {
      for (const canvas of picture.querySelectorAll("canvas")) {
        canvas.hidden = !chosen;
        canvas.parentElement.querySelector("img.student").hidden = Boolean(chosen);
        if (chosen) paint(canvas);
      }
    }
  }

  if (range) {
    range.max = about.thresholds.length - 1;
    const start = range.value = about.thresholds.indexOf(0.5);
    range.addEventListener("input", () => {
      const which = tool("which").value, step = Number(range.value);
      chosen = about.names.map((_, index) => (which === "" || Number(which) === index ? step : chosen?.[index] ?? start));
      toThresholds();
    });
    tool("which").addEventListener("change", () => {
      if (chosen && tool("which").value !== "") range.value = chosen[tool("which").value];
      toThresholds();
    });
    tool("argmax").addEventListener("click", () => { chosen = null; toThresholds(); });
    tool("chosen").hidden = !about.chosen;
    tool("chosen").addEventListener("click", () => {
      chosen = about.chosen.map((threshold) => about.thresholds.indexOf(threshold));
      toThresholds();
    });
  }

  for (const picture of pictures) {
    const slider = picture.querySelector(".stop"), button = picture.querySelector(".closer");
    slider.addEventListener("input", () => { show(picture); tell(slider); });
    slider.addEventListener("keydown", step);
    button.addEventListener("click", () => {
      const close = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(close));
      picture.querySelector(".frame.close").hidden = !close;
      picture.querySelector(".frame.whole").hidden = close;
    });
    picture.querySelector(".controls").hidden = false;
  }
  tool("all").addEventListener("keydown", step);
  tool("all").addEventListener("input", (event) => {
    tell(event.target);
    for (const picture of pictures) {
      const slider = picture.querySelector(".stop");
      slider.value = event.target.value; // past its end, where there is no truth, it stays at the student
      slider.dispatchEvent(new Event("input"));
    }
  });
  for (const id of ["strength", "boxes"]) tool(id).addEventListener("input", () => pictures.forEach(show));
  for (const id of ["sort", "split", "class"]) tool(id).addEventListener("change", arrange);
  const form = gallery.parentElement.querySelector(".tools");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  form.reset(); // going back, a browser restores the controls, but not what they changed
  arrange();
  pictures.forEach((picture) => { show(picture); tell(picture.querySelector(".stop")); });
})();
