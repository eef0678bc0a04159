// One binary that is kube-apiserver, kube-controller-manager, kube-scheduler, kubelet, kube-proxy or coredns, depending on
// the name it is started under (a symbolic link, argv[0]). One file shares most of its code among them and is a fraction
// of the download, link time and disk space of separate programs.
package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	// Registered by their side effects, as each upstream main does: the JSON log format and the client and version metrics.
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

var programs = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-proxy":              proxy.NewProxyCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	name := filepath.Base(os.Args[0])
	if name == "coredns" {
		// The order in which plugins see a request, and all that a Corefile may name.
		dnsserver.Directives = []string{"errors", "ready", "kubernetes"}
		coremain.Run()
		return
	}
	newCommand, ok := programs[name]
	if !ok {
		names := strings.Join(slices.Sorted(maps.Keys(programs)), ", ") + ", coredns"
		fmt.Fprintf(os.Stderr, "%q is not a program in this file; start it through a link named one of: %s\n", name, names)
		os.Exit(2)
	}
	os.Exit(cli.Run(newCommand()))
}
