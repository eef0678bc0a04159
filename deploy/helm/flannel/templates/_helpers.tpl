{{- define "flannel.image" -}}
{{ .repository }}:{{ .tag }}
{{- end }}

{{- define "flannel.agentImage" -}}
{{- $image := .Values.flannel.image -}}
{{ include "flannel.image" (dict "repository" $image.repository "tag" ($image.tag | default .Chart.AppVersion)) }}
{{- end }}

{{- define "flannel.cniImage" -}}
{{- $own := .Values.flannel.flannel_cni.image -}}
{{- $image := .Values.flannel.image -}}
{{ include "flannel.image" (dict "repository" ($own.repository | default $image.repository) "tag" ($own.tag | default $image.tag | default .Chart.AppVersion)) }}
{{- end }}

{{- /*
net-conf.json as a dictionary, from which a serialiser makes JSON: whatever a value holds, the result is JSON. Which keys a
backend has is in flannel's documentation of backends.
*/ -}}
{{- define "flannel.netConf" -}}
{{- $flannel := .Values.flannel -}}
{{- $keys := dict -}}
{{- if eq $flannel.backend "vxlan" -}}
{{- $keys = dict "backendPort" "Port" "vni" "VNI" "GBP" "GBP" "directRouting" "DirectRouting" "mtu" "MTU" "macPrefix" "MacPrefix" -}}
{{- else if eq $flannel.backend "wireguard" -}}
{{- $keys = dict "backendPort" "ListenPort" "backendPortv6" "ListenPortV6" "psk" "PSK" "mtu" "MTU" "tunnelMode" "Mode" "keepaliveInterval" "PersistentKeepaliveInterval" -}}
{{- else if eq $flannel.backend "udp" -}}
{{- $keys = dict "backendPort" "Port" -}}
{{- else if eq $flannel.backend "ipip" -}}
{{- $keys = dict "directRouting" "DirectRouting" -}}
{{- end -}}
{{- $backend := dict "Type" $flannel.backend -}}
{{- range $value, $key := $keys -}}
{{- with index $flannel $value -}}
{{- $_ := set $backend $key . -}}
{{- end -}}
{{- end -}}
{{- $conf := dict "Backend" $backend "EnableNFTables" $flannel.enableNFTables -}}
{{- if .Values.podCidr -}}
{{- $_ := set $conf "Network" .Values.podCidr -}}
{{- else -}}
{{- $_ := set $conf "EnableIPv4" false -}}
{{- end -}}
{{- if .Values.podCidrv6 -}}
{{- $_ := set $conf "IPv6Network" .Values.podCidrv6 -}}
{{- $_ := set $conf "EnableIPv6" true -}}
{{- end -}}
{{- toPrettyJson $conf -}}
{{- end }}

{{- define "flannel.cniConf" -}}
{{- with fromJson .Values.flannel.cniConf -}}
{{- with .Error }}{{ fail (printf "flannel.cniConf is not JSON: %s" .) }}{{ end -}}
{{- end -}}
{{ .Values.flannel.cniConf }}
{{- end }}
