// Run an exported folder in transformers.js under Node: PAGE FOLDER TASK IMAGE -> JSON of what it says.
// PAGE is examples/browser, where transformers.js is installed.
import { basename, dirname, resolve } from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [page, folder, task, path] = process.argv.slice(2);
const installed = createRequire(resolve(page, "pixels.js")).resolve("@huggingface/transformers");
const { env, pipeline, RawImage } = await import(pathToFileURL(installed));
const { prepare } = await import(pathToFileURL(resolve(page, "pixels.js")));

env.allowRemoteModels = false;
env.localModelPath = dirname(resolve(folder));
const run = await pipeline(task, basename(folder));
const photo = (await RawImage.read(path)).rgb();
const { data, width, height } = prepare(photo, run.processor.image_processor.config);
const image = new RawImage(data, width, height, 3);
const inputs = await run.processor(image);
const outputs = await run.model(inputs);
const answer = { pixel_values: [...inputs.pixel_values.data] };
if (outputs.logits) answer.logits = [...outputs.logits.data];
if (task === "image-classification") {
  answer.says = await run(image, { top_k: 2 });
  answer.alone = await run(photo, { top_k: 2 }); // transformers.js resizes
} else {
  const masks = await run(image);
  answer.says = Object.fromEntries(masks.map(({ label, mask }) => [label, mask.data.filter((x) => x > 0).length]));
}
console.log(JSON.stringify(answer));
