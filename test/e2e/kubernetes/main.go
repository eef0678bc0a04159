// One binary that is every program of a Kubernetes cluster, depending on the name it is started under (a symbolic link,
// argv[0]): the servers, kubeadm, kubectl, etcd and CoreDNS. One file shares most of its code among them and is a fraction
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
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/loop"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/reload"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	// Registered by their side effects, as each upstream main does: the JSON log format and the client and version metrics.
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// Programs that are one cobra command.
var commands = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-proxy":              proxy.NewProxyCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubectl":                 kubectl.NewDefaultKubectlCommand,
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

// Programs with a main of their own.
var mains = map[string]func(){
	"coredns": func() {
		// The order in which plugins see a request, and all that a Corefile may name.
		dnsserver.Directives = []string{
			"reload", "prometheus", "errors", "health", "ready", "loadbalance", "cache", "loop", "kubernetes", "forward",
		}
		coremain.Run()
	},
	"etcd": func() { etcdmain.Main(os.Args) },
	"kubeadm": func() {
		if err := kubeadm.Run(); err != nil {
			os.Exit(1)
		}
	},
}

func main() {
	name := filepath.Base(os.Args[0])
	if run, ok := mains[name]; ok {
		run()
		return
	}
	newCommand, ok := commands[name]
	if !ok {
		names := slices.Sorted(maps.Keys(commands))
		names = append(names, slices.Sorted(maps.Keys(mains))...)
		fmt.Fprintf(os.Stderr, "%q is not a program in this file; start it through a link named one of: %s\n", name, strings.Join(names, ", "))
		os.Exit(2)
	}
	os.Exit(cli.Run(newCommand()))
}
