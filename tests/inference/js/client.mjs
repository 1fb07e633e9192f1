// Use: node client.mjs ADDRESS PICTURE. Prints the answers of both ways to name an endpoint.
import { readFile } from "node:fs/promises";
import { InferenceClient } from "@huggingface/inference";

const [address, image] = process.argv.slice(2);
const data = new Blob([await readFile(image)]);
const client = new InferenceClient();
const given = await client.imageClassification({ endpointUrl: address, data });
const bound = await client.endpoint(address).imageClassification({ inputs: data });
console.log(JSON.stringify([given, bound]));
