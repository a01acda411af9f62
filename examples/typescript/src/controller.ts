// An inference controller that is not ours: it watches what should be live in an EXTERNAL
// environment, fetches each version with a grant (it has no storage key), verifies every byte,
// and reports back. Where a real one would start a server, this one keeps the files in a folder.
//
//   MODELYARD_SERVER=… MODELYARD_TOKEN_FILE=agent.token npm run controller -- ENVIRONMENT FOLDER

import { createHash } from "node:crypto";
import { mkdir, open, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient, ConnectError } from "@connectrpc/connect";
import { connect, credential, project } from "./connection.ts";
import { ArtifactService } from "./gen/modelyard/artifact/v1/artifact_service_pb.ts";
import type { AssignedVariant, Assignment } from "./gen/modelyard/deployer/v1/assignment_pb.ts";
import { ControllerService } from "./gen/modelyard/deployer/v1/controller_service_pb.ts";
import { VariantState } from "./gen/modelyard/deployer/v1/deployment_pb.ts";

const [environmentId, folder = ""] = process.argv.slice(2);
if (!environmentId || !folder) throw new Error("name an environment and a folder");
const environment = `${project}/environments/${environmentId}`;
const controller = "typescript";
const control = createClient(ControllerService, connect(credential()));

// What this process has fetched and verified, or is about to: each artifact once.
const verified = new Map<string, Promise<string>>();

function fetchOnce(deployment: string, artifact: string): Promise<string> {
  const known = verified.get(artifact);
  if (known) return known;
  const fetching = fetchArtifact(deployment, artifact);
  verified.set(artifact, fetching);
  fetching.catch(() => verified.delete(artifact)); // to be tried again
  return fetching;
}

// Fetch an artifact into the folder, whole or not at all.
async function fetchArtifact(deployment: string, artifact: string): Promise<string> {
  const target = join(folder, artifact.slice(-64));
  const part = `${target}.part`;
  await rm(part, { recursive: true, force: true });
  const { grant } = await control.createGrant({ deployment, artifact });
  const artifacts = createClient(ArtifactService, connect(grant));
  let pageToken = "";
  do {
    const page = await artifacts.listFiles({ artifact, pageToken, pageSize: 1000 });
    for (const file of page.files) await fetchFile(artifacts, artifact, file, part);
    pageToken = page.nextPageToken;
  } while (pageToken);
  await rm(target, { recursive: true, force: true });
  await rename(part, target);
  return target;
}

type Artifacts = ReturnType<typeof createClient<typeof ArtifactService>>;

async function fetchFile(
  artifacts: Artifacts,
  artifact: string,
  file: { path: string; sha256: string },
  root: string,
): Promise<void> {
  const path = join(root, file.path);
  if (!path.startsWith(`${root}/`)) throw new Error(`${file.path} leads out of the artifact`);
  await mkdir(dirname(path), { recursive: true });
  const hash = createHash("sha256");
  const out = await open(path, "w");
  try {
    for await (const piece of artifacts.readFile({ artifact, path: file.path })) {
      hash.update(piece.data);
      await out.write(piece.data);
    }
    await out.sync();
  } finally {
    await out.close();
  }
  if (hash.digest("hex") !== file.sha256) throw new Error(`${file.path} is corrupt`);
}

// Make an assignment so, and say what came of it.
async function carryOut({ deployment, generation, variants }: Assignment): Promise<void> {
  const report = await Promise.all(variants.map((variant) => bringUp(deployment, variant)));
  const weightsApplied = report.every((variant) => variant.state === VariantState.READY);
  const status = { deployment, generation, weightsApplied, variants: report };
  await control.reportStatus({ controller, status });
  const shares = variants.map((variant) => `${variant.version} ${variant.weight} %`);
  console.log(`generation ${generation} of ${deployment}: ${shares.join(", ") || "nothing"}`);
}

async function bringUp(deployment: string, { revision, version, artifact }: AssignedVariant) {
  try {
    const place = await fetchOnce(deployment, artifact);
    console.log(`verified ${version} in ${place}`);
    return { revision, state: VariantState.READY };
  } catch (error) {
    const failure = { reason: "FETCH_FAILED", message: String(error).slice(0, 4000) };
    return { revision, state: VariantState.FAILED, failure };
  }
}

// Follow the environment for ever; a broken stream goes on where it broke.
let cursor = "";
for (;;) {
  try {
    for await (const message of control.watchAssignments({ environment, cursor, controller })) {
      for (const assignment of message.assignments) await carryOut(assignment);
      cursor = message.cursor;
    }
  } catch (error) {
    console.error(`watching again: ${ConnectError.from(error).message}`);
  }
  await sleep(500);
}
