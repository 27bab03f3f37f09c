// Run an exported folder in transformers.js under Node: FOLDER TASK IMAGE -> JSON of what it says.
import { basename, dirname, resolve } from "node:path";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// from where the command is run, not from where this file lies
const require = createRequire(resolve(process.env.NODE_PATH, "x.js"));
const { env, pipeline, RawImage } = await import(pathToFileURL(require.resolve("@huggingface/transformers")));

const [folder, task, path] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = dirname(resolve(folder));
const run = await pipeline(task, basename(folder));
const image = await RawImage.read(path);
const inputs = await run.processor(image);
const outputs = await run.model(inputs);
const answer = { pixel_values: [...inputs.pixel_values.data] };
if (outputs.logits) answer.logits = [...outputs.logits.data];
if (task === "image-classification") {
  answer.says = await run(image, { top_k: 2 });
} else {
  const masks = await run(image);
  answer.says = Object.fromEntries(masks.map(({ label, mask }) => [label, mask.data.filter((x) => x > 0).length]));
}
console.log(JSON.stringify(answer));
