{{- define "thalweg.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "thalweg.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "thalweg.labels" -}}
{{ include "thalweg.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* The pod of both kinds. */ -}}
{{- define "thalweg.pod" -}}
metadata:
  labels:
    {{- include "thalweg.selector" . | nindent 4 }}
spec:
  {{- if eq .Values.kind "daemonset" }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- else }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "thalweg.selector" . | nindent 10 }}
  {{- end }}
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: { type: RuntimeDefault }
  containers:
    - name: thalweg
      image: "{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}"
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [run, -c, /etc/thalweg/thalweg.toml]
      ports:
        {{- range .Values.ports }}
        - { name: {{ .name }}, containerPort: {{ .port }} }
        {{- end }}
        - { name: metrics, containerPort: {{ .Values.metricsPort }} }
      startupProbe:
        httpGet: { path: /healthz, port: metrics }
        periodSeconds: 1
        failureThreshold: 60
      livenessProbe:
        httpGet: { path: /healthz, port: metrics }
        periodSeconds: 5
        failureThreshold: 3
      readinessProbe:
        httpGet: { path: /readyz, port: metrics }
        periodSeconds: 2
        failureThreshold: 2
      lifecycle:
        preStop:
          sleep: { seconds: {{ .Values.preStopSeconds }} }
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: { drop: [ALL] }
      volumeMounts:
        - { name: configuration, mountPath: /etc/thalweg, readOnly: true }
        - { name: runtime, mountPath: /run }
  volumes:
    - name: configuration
      configMap: { name: {{ include "thalweg.name" . }} }
    - name: runtime
      emptyDir: { medium: Memory, sizeLimit: 1Mi }
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
