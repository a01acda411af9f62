// Lists a model's versions, follows a build to its end, and reads an artifact,
// verified, with nothing but the protos: no code of ours but this file.
//
//   MODELYARD_SERVER=127.0.0.1:7070 MODELYARD_TOKEN_FILE=… npm start -- MODEL

import { createHash } from "node:crypto";
import { createClient } from "@connectrpc/connect";
import { connect, credential, project } from "./connection.ts";
import { ArtifactService } from "./gen/modelyard/artifact/v1/artifact_service_pb.ts";
import { BuildService } from "./gen/modelyard/builder/v1/build_service_pb.ts";
import { BuildState, PhaseKind, PhaseState } from "./gen/modelyard/builder/v1/build_pb.ts";
import { ModelService } from "./gen/modelyard/metadata/v1/model_service_pb.ts";
import { VersionState } from "./gen/modelyard/metadata/v1/version_pb.ts";

const transport = connect(credential());
const models = createClient(ModelService, transport);
const builds = createClient(BuildService, transport);
const artifacts = createClient(ArtifactService, transport);

async function listVersions(model: string) {
  const { versions } = await models.listVersions({ parent: `${project}/models/${model}` });
  for (const version of versions) {
    console.log(`version ${version.name} ${VersionState[version.state]}`);
  }
  return versions;
}

async function followBuild(build: string) {
  let cursor = "";
  for await (const message of builds.streamBuildEvents({ build, cursor })) {
    cursor = message.cursor; // where to go on if the connection breaks
    for (const event of message.events) {
      if (event.kind.case === "phaseChanged") {
        console.log(`phase ${PhaseKind[event.phase]} ${PhaseState[event.kind.value.state]}`);
      } else if (event.kind.case === "stateChanged") {
        console.log(`build ${BuildState[event.kind.value.state]}`);
      }
    }
  }
}

async function readArtifact(artifact: string) {
  const { files } = await artifacts.listFiles({ artifact });
  for (const file of files) {
    const hash = createHash("sha256");
    for await (const piece of artifacts.readFile({ artifact, path: file.path })) {
      hash.update(piece.data);
    }
    if (hash.digest("hex") !== file.sha256) throw new Error(`${file.path} is corrupt`);
    console.log(`file ${file.path} ${file.sizeBytes} verified`);
  }
}

const model = process.argv[2];
if (!model) throw new Error("name a model");
const newest = (await listVersions(model))[0];
if (!newest) throw new Error(`${model} has no version`);
if (newest.build) await followBuild(newest.build);
await readArtifact(newest.artifact);
