// The page of the service: pictures in, verdicts out. Nothing is stored unless "Save" is pressed.
"use strict";

const $ = (id) => document.getElementById(id);
const pictures = [];  // {name, file, url, answer | error, overlay}
let classes = {}, token = "", chosen = null;

async function call(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { ...options, headers: { ...headers, ...options.headers } });
  if (response.status === 401) {
    const given = window.prompt("The service asks for its token:");
    if (!given) throw new Error("the service asks for its token");
    token = given.trim();
    return call(path, options);
  }
  if (response.status === 429) {
    const seconds = Number(response.headers.get("Retry-After")) || 1;
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    return call(path, options);
  }
  if (!response.ok) {
    const reason = (await response.json().catch(() => ({}))).detail;
    throw new Error(typeof reason === "string" ? reason : `status ${response.status}`);
  }
  return response;
}

async function start() {
  for (;;) {
    const ready = await fetch("/readyz").then((r) => r.ok, () => false);
    if (ready) break;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  const known = await (await call("/v1/classes")).json();
  for (const row of known.classes) {
    classes[row.name] = row;
    $("class_name").add(new Option(row.name, `class:${row.name}`));
  }
  $("save").hidden = !known.can_save;
  $("state").textContent = "Ready";
}

async function add(files) {
  const images = [...files].filter((file) => file.type.startsWith("image/") || /\.(tiff?|bmp|webp)$/i.test(file.name));
  const left = files.length - images.length;
  if (left) $("effect").textContent = `${left} files are no pictures`;
  const queue = images.map((file) => {
    const picture = { name: file.webkitRelativePath || file.name || "pasted", file, url: URL.createObjectURL(file) };
    pictures.push(picture);
    return picture;
  });
  draw();
  const next = async () => {
    for (let picture = queue.shift(); picture; picture = queue.shift()) await score(picture);
  };
  await Promise.all([next(), next(), next(), next()]);
}

async function score(picture) {
  const name = encodeURIComponent($("class_name").value);
  try {
    const body = await picture.file.arrayBuffer();
    const response = await call(`/v1/predict?class_name=${name}`, { method: "POST", body });
    picture.answer = await response.json();
  } catch (error) {
    picture.error = error.message;
  }
  if (!chosen) await choose(picture);
  draw();
}

// The slider's threshold counts on this page alone, until it is saved.
function thresholdOf(name) {
  return classes[name]?.moved ?? classes[name]?.threshold ?? null;
}

function verdictOf({ answer, error }) {
  if (error) return "error";
  if (!answer) return "…";
  if (answer.verdict === "unknown") return "unknown";
  const threshold = thresholdOf(answer.class_name);
  if (threshold === null) return answer.verdict ?? "–";
  return answer.score > threshold ? "defective" : "normal";
}

function draw() {
  const rows = pictures.map((picture) => {
    const { answer, error } = picture, verdict = verdictOf(picture);
    const threshold = answer ? thresholdOf(answer.class_name) : null;
    const row = document.createElement("tr");
    row.tabIndex = 0;
    row.setAttribute("aria-selected", String(picture === chosen));
    const cells = [picture.name, answer?.class_name ?? "", verdict, answer?.score.toPrecision(4) ?? "",
      threshold?.toPrecision(4) ?? "", error ?? answer?.reason ?? ""];
    cells.forEach((text, i) => {
      const cell = row.insertCell();
      cell.textContent = text;
      if (i === 2) cell.className = verdict;
      if (i > 3) cell.className = "wide";
    });
    row.onclick = () => choose(picture);
    row.onkeydown = (event) => { if (event.key === "Enter") choose(picture); };
    return row;
  });
  $("rows").replaceChildren(...rows);
  $("csv").disabled = !pictures.some((picture) => picture.answer || picture.error);
  showChosen();
}

async function choose(picture) {
  chosen = picture;
  if (picture.answer) slide(picture.answer.class_name);
  draw();
  if (picture.answer && !picture.overlay) {
    const response = await call(picture.answer.overlay).catch(() => null);
    if (response) picture.overlay = URL.createObjectURL(await response.blob());
    if (picture === chosen) showChosen();
  }
}

function slide(name) {
  const threshold = thresholdOf(name), slider = $("threshold");
  slider.disabled = threshold === null;
  if (threshold === null) return;
  const own = pictures.filter((p) => p.answer?.class_name === name).map((p) => p.answer.score);
  const low = Math.min(...own, threshold), high = Math.max(...own, threshold), room = (high - low || 1) / 5;
  Object.assign(slider, { min: low - room, max: high + room, step: (high - low || 1) / 200, value: threshold });
  slider.dataset.name = name;
  $("threshold_value").textContent = `${name}: ${threshold.toPrecision(4)}`;
}

function showChosen() {
  $("picture").hidden = !chosen;
  if (!chosen) return;
  const { answer, error } = chosen, verdict = verdictOf(chosen);
  $("image").src = chosen.url;
  $("image").alt = `${chosen.name}: ${verdict}`;
  $("overlay").hidden = !(chosen.overlay && $("show_overlay").checked);
  if (chosen.overlay) $("overlay").src = chosen.overlay;
  $("verdict").textContent = verdict;
  $("verdict").className = verdict;
  $("reason").textContent = error ?? answer?.reason ?? "";
  const threshold = answer ? thresholdOf(answer.class_name) : null;
  $("gauge").hidden = !answer || threshold === null;
  if (answer && threshold !== null) {
    const end = 1.5 * Math.max(answer.score, threshold, 1e-9);
    const share = (value) => `${100 * Math.min(1, Math.max(0, value / end))}%`;
    $("level").style.width = share(answer.score);
    $("mark").style.left = share(threshold);
    $("gauge").setAttribute("aria-label", `score ${answer.score.toPrecision(4)}, threshold ${threshold.toPrecision(4)}`);
  }
  const outlines = $("outlines");
  outlines.replaceChildren();
  if (answer && $("show_outlines").checked && verdict === "defective") {
    outlines.setAttribute("viewBox", `-0.5 -0.5 ${answer.size[0]} ${answer.size[1]}`);
    outlines.setAttribute("preserveAspectRatio", "none");
    for (const region of answer.regions) {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "polygon");
      line.setAttribute("points", region.polygon.map((point) => point.join(",")).join(" "));
      line.setAttribute("vector-effect", "non-scaling-stroke");
      outlines.append(line);
    }
  }
}

function moved() {
  const name = $("threshold").dataset.name, before = pictures.map(verdictOf);
  classes[name].moved = Number($("threshold").value);
  $("threshold_value").textContent = `${name}: ${classes[name].moved.toPrecision(4)}`;
  const stored = classes[name].threshold, own = pictures.filter((p) => p.answer?.class_name === name);
  const changed = own.filter((p) => p.answer.verdict !== "unknown" && (p.answer.score > stored) !== (p.answer.score > classes[name].moved));
  $("effect").textContent = `${changed.length} of ${own.length} pictures of ${name} change their verdict; nothing is stored`;
  if (String(before) !== String(pictures.map(verdictOf))) draw(); else showChosen();
}

async function save() {
  const name = $("threshold").dataset.name;
  if (!name || classes[name].moved === undefined) return;
  token = window.prompt(`Token of the service, to keep ${classes[name].moved.toPrecision(4)} for ${name}:`) ?? "";
  if (!token) return;
  try {
    await call(`/v1/classes/${encodeURIComponent(name)}/threshold?threshold=${classes[name].moved}`, { method: "PUT" });
    classes[name].threshold = classes[name].moved;
    $("effect").textContent = `Saved for ${name}`;
  } catch (error) {
    $("effect").textContent = `Not saved: ${error.message}`;
  }
}

function download() {
  const quote = (text) => `"${String(text ?? "").replaceAll('"', '""')}"`;
  const lines = pictures.map((picture) => {
    const answer = picture.answer ?? {};
    return [picture.name, answer.class_name, verdictOf(picture), answer.score, thresholdOf(answer.class_name), picture.error ?? answer.reason].map(quote).join(",");
  });
  const text = ["picture,class,verdict,score,threshold,reason", ...lines].join("\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "verdicts.csv";
  link.click();
}

async function filesOf(items) {
  const files = [];
  const walk = async (entry) => {
    if (entry.isFile) files.push(await new Promise((resolve, reject) => entry.file(resolve, reject)));
    else if (entry.isDirectory) {
      const reader = entry.createReader();
      for (;;) {
        const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!part.length) break;
        for (const child of part) await walk(child);
      }
    }
  };
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  for (const entry of entries) await walk(entry);
  return files;
}

$("files").onchange = (event) => add(event.target.files);
$("drop").ondragover = (event) => { event.preventDefault(); $("drop").classList.add("over"); };
$("drop").ondragleave = () => $("drop").classList.remove("over");
$("drop").ondrop = async (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const plain = [...event.dataTransfer.files], files = await filesOf(event.dataTransfer.items);
  add(files.length ? files : plain);
};
$("drop").onkeydown = (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); $("files").click(); } };
document.onpaste = (event) => { if (event.clipboardData.files.length) add(event.clipboardData.files); };
$("threshold").oninput = moved;
$("save").onclick = save;
$("csv").onclick = download;
$("show_overlay").onchange = showChosen;
$("show_outlines").onchange = showChosen;
$("settings").onsubmit = (event) => event.preventDefault();
start().catch((error) => { $("state").textContent = error.message; });
