"""Who may call what, as people decided it: written here by hand, not read from the servers.

A line is an RPC, the right it demands, and the field that names the resource with an example;
without one the right is held on the installation. Whoever adds an RPC adds its line.
"""

from __future__ import annotations

DIGEST = "0" * 64
TABLE = f"""
artifact.ArtifactService
  FindMissing WRITE parent=projects/P
  WriteChunks WRITE parent=projects/P
  CommitFiles WRITE parent=projects/P
  CommitFile WRITE parent=projects/P
  CreateArtifact WRITE parent=projects/P
  GetArtifact READ name=projects/P/artifacts/{DIGEST}
  ListFiles READ artifact=projects/P/artifacts/{DIGEST}
  ReadFile READ artifact=projects/P/artifacts/{DIGEST}
  ReadFiles READ artifact=projects/P/artifacts/{DIGEST}
  ReadRecipe READ artifact=projects/P/artifacts/{DIGEST}
  HoldArtifact WRITE hold.artifact=projects/P/artifacts/{DIGEST}
  HoldArtifacts WRITE parent=projects/P
  ReleaseArtifact WRITE hold.artifact=projects/P/artifacts/{DIGEST}
  ListHolds READ artifact=projects/P/artifacts/{DIGEST}
  ReleaseHolder WRITE parent=projects/P
artifact.AuditService
  ListAuditEntries AUDIT
artifact.FormatService
  GetFormatReport READ artifact=projects/P/artifacts/{DIGEST}
artifact.LinkService
  CreateLink READ artifact=projects/P/artifacts/{DIGEST}
artifact.StorageService
  VerifyArtifact READ artifact=projects/P/artifacts/{DIGEST}
  SweepProject ADMIN parent=projects/P
  GetUsage READ parent=projects/P
  SetQuota OPERATE
artifact.TransferService
  GrantPack WRITE parent=projects/P
  AddPack WRITE parent=projects/P
  GrantReads READ artifact=projects/P/artifacts/{DIGEST}
builder.AuditService
  ListAuditEntries AUDIT
builder.AutomationService
  CreateAutomation BUILD parent=projects/P
  GetAutomation READ name=projects/P/automations/a
  ListAutomations READ parent=projects/P
  UpdateAutomation BUILD automation.name=projects/P/automations/a
  DeleteAutomation BUILD name=projects/P/automations/a
  RunAutomation BUILD name=projects/P/automations/a
  ListExecutions READ parent=projects/P/automations/a
  GetExecution READ name=projects/P/automations/a/executions/e
  CancelExecution BUILD name=projects/P/automations/a/executions/e
  ReportMetric WRITE model=projects/P/models/m
  ListReportedValues READ parent=projects/P
builder.BuildService
  CreateBuild BUILD parent=projects/P
  GetBuild READ name=projects/P/builds/b
  ListBuilds READ parent=projects/P
  CancelBuild BUILD name=projects/P/builds/b
  StreamBuildEvents READ build=projects/P/builds/b
builder.QueueService
  GetBuildLimits READ resource=projects/P
  SetBuildLimits ADMIN build_limits.resource=projects/P
  ListWorkers OPERATE
builder.SecretService
  CreateSecret ADMIN parent=projects/P
  GetSecret READ name=projects/P/secrets/s
  ListSecrets READ parent=projects/P
  UpdateSecret ADMIN name=projects/P/secrets/s
  DeleteSecret ADMIN name=projects/P/secrets/s
builder.WorkerService
  LeaseBuild WORK
  ExtendLease WORK
  GetBuildSecrets WORK
  ReportSource WORK
  ReportPhase WORK
  ReportEvents WORK
  RegisterBuild WORK
  EndAttempt WORK
deployer.AuditService
  ListAuditEntries AUDIT
deployer.ControllerService
  WatchAssignments CONTROL
  ReportStatus CONTROL
  CreateGrant CONTROL
  RecordSample CONTROL
deployer.DeploymentService
  DeployVersion DEPLOY parent=projects/P/environments/e
  CheckVersion READ parent=projects/P/environments/e
  RollbackDeployment DEPLOY name=projects/P/environments/e/deployments/m
  ContinueRollout DEPLOY name=projects/P/environments/e/deployments/m
  AbortRollout DEPLOY name=projects/P/environments/e/deployments/m
  ShadowVersion DEPLOY parent=projects/P/environments/e
  StopShadow DEPLOY name=projects/P/environments/e/deployments/m
  PreviewVersion DEPLOY parent=projects/P/environments/e
  StopPreview DEPLOY name=projects/P/environments/e/deployments/m
  StopDeployment DEPLOY name=projects/P/environments/e/deployments/m
  GetDeployment READ name=projects/P/environments/e/deployments/m
  ListDeployments READ parent=projects/P/environments/e
  ListRevisions READ parent=projects/P/environments/e/deployments/m
  StreamDeploymentEvents READ deployment=projects/P/environments/e/deployments/m
deployer.EnvironmentService
  CreateEnvironment ADMIN parent=projects/P
  GetEnvironment READ name=projects/P/environments/e
  ListEnvironments READ parent=projects/P
  UpdateEnvironment ADMIN environment.name=projects/P/environments/e
  ApproveVersion DEPLOY environment=projects/P/environments/e
  WithdrawApproval DEPLOY environment=projects/P/environments/e
  ListApprovals READ environment=projects/P/environments/e
metadata.AuditService
  ListAuditEntries AUDIT
metadata.ComparisonService
  Compare READ parent=projects/P
metadata.DatasetService
  CreateDatasetVersion WRITE parent=projects/P/datasets/d
  GetDatasetVersion READ name=projects/P/datasets/d/versions/1
  ListDatasets READ parent=projects/P
  ListDatasetVersions READ parent=projects/P/datasets/d
  CompareDatasets READ parent=projects/P
metadata.LineageService
  StartVersionUse DEPLOY version_use.version=projects/P/models/m/versions/1
  EndVersionUse DEPLOY version_use.version=projects/P/models/m/versions/1
  ListVersionUses READ parent=projects/P/models/m/versions/1
  GetLineage READ name=projects/P/models/m/versions/1
metadata.MemberService
  SetMember ADMIN parent=projects/P
  RemoveMember ADMIN parent=projects/P
  ListMembers READ parent=projects/P
metadata.ModelService
  CreateModel WRITE parent=projects/P
  GetModel READ name=projects/P/models/m
  ListModels READ parent=projects/P
  UpdateModel WRITE model.name=projects/P/models/m
  DeleteModel WRITE name=projects/P/models/m
  RestoreModel WRITE name=projects/P/models/m
  PurgeModel ADMIN name=projects/P/models/m
  CreateVersion WRITE parent=projects/P/models/m
  GetVersion READ name=projects/P/models/m/versions/1
  ResolveVersion READ name=projects/P/models/m/versions/1
  ListVersions READ parent=projects/P/models/m
  UpdateVersion WRITE version.name=projects/P/models/m/versions/1
  ArchiveVersion WRITE name=projects/P/models/m/versions/1
  UnarchiveVersion WRITE name=projects/P/models/m/versions/1
  DeleteVersion WRITE name=projects/P/models/m/versions/1
  RestoreVersion WRITE name=projects/P/models/m/versions/1
  PurgeVersion ADMIN name=projects/P/models/m/versions/1
  CreateEvaluation WRITE parent=projects/P/models/m/versions/1
  ListEvaluations READ parent=projects/P/models/m/versions/1
  UpdateAlias WRITE alias.name=projects/P/models/m/aliases/a
  GetAlias READ name=projects/P/models/m/aliases/a
  ListAliases READ parent=projects/P/models/m
  DeleteAlias WRITE name=projects/P/models/m/aliases/a
  ListAliasChanges READ parent=projects/P/models/m
  WatchModels READ parent=projects/P/models/m
metadata.NoticeService
  PublishExecution VOUCHED execution=projects/P/automations/a/executions/e
metadata.ProjectService
  CreateProject OPERATE
  GetProject READ name=projects/P
  ListProjects anybody
  UpdateProject ADMIN project.name=projects/P
  DeleteProject ADMIN name=projects/P
  RestoreProject ADMIN name=projects/P
  PurgeProject OPERATE
  CreateToken OPERATE
  ListTokens OPERATE
  RevokeToken OPERATE
  IntrospectCredential anybody
  IssueDelegation READ resource=projects/P/builds/b
  RenewDelegation DELEGATE
metadata.RetentionService
  SetRetention ADMIN retention.model=projects/P/models/m
  GetRetention READ model=projects/P/models/m
  DeleteRetention ADMIN model=projects/P/models/m
  ApplyRetention ADMIN model=projects/P/models/m
metadata.RunService
  CreateRun WRITE parent=projects/P/models/m
  GetRun READ name=projects/P/models/m/runs/r
  ListRuns READ parent=projects/P/models/m
  UpdateRun WRITE run.name=projects/P/models/m/runs/r
  IngestRunData WRITE run=projects/P/models/m/runs/r
  GetIngestPosition READ run=projects/P/models/m/runs/r
  FinishRun WRITE name=projects/P/models/m/runs/r
  ListMetricPoints READ run=projects/P/models/m/runs/r
  SampleMetricPoints READ run=projects/P/models/m/runs/r
  DeleteRun WRITE name=projects/P/models/m/runs/r
  RestoreRun WRITE name=projects/P/models/m/runs/r
  PurgeRun ADMIN name=projects/P/models/m/runs/r
  WatchRuns READ parent=projects/P/models/m
metadata.SignatureService
  AddSignature WRITE version=projects/P/models/m/versions/1
  ListSignatures READ version=projects/P/models/m/versions/1
  GetSignature READ version=projects/P/models/m/versions/1
metadata.WebhookService
  CreateWebhook ADMIN parent=projects/P
  ListWebhooks ADMIN parent=projects/P
  UpdateWebhook ADMIN webhook.name=projects/P/webhooks/w
  DeleteWebhook ADMIN name=projects/P/webhooks/w
  TestWebhook ADMIN name=projects/P/webhooks/w
  ListWebhookDeliveries ADMIN parent=projects/P/webhooks/w
  RedeliverWebhook ADMIN name=projects/P/webhooks/w/deliveries/1
"""


def rows() -> dict[str, tuple[str, str]]:
    """Return, by gRPC path, the right that an RPC demands and `field=resource`."""
    found: dict[str, tuple[str, str]] = {}
    service = ""
    for line in TABLE.strip().splitlines():
        if not line.startswith(" "):
            package, _, name = line.partition(".")
            service = f"modelyard.{package}.v1.{name}"
            continue
        method, right, *where = line.split()
        found[f"/{service}/{method}"] = (right, where[0] if where else "")
    return found
