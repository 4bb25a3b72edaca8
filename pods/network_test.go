package pods_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"bareboat/pods"
)

func TestPodsWithoutNetworkShareASocketInAVolume(t *testing.T) {
	t.Parallel()
	p := use(t)
	volume := p.volume(t)
	server := p.spec("serve", "unix:/data/app.sock")
	server.Hostname = "backend"
	server.Containers[0].Mounts = []pods.Mount{{Kind: pods.MountVolume, Source: volume, Target: "/data"}}
	p.start(t, server)
	edge := p.spec("lines", "0")
	edge.Containers[0].Mounts = []pods.Mount{{Kind: pods.MountVolume, Source: volume, Target: "/run/chat", ReadOnly: true}}
	p.start(t, edge)

	until(t, "the server", func() bool { return strings.Contains(p.log(t, server.Containers[0].Name), "ready") })
	if got := p.run(t, edge.Containers[0].Name, "get", "unix:/run/chat/app.sock"); got != "hello from backend" {
		t.Errorf("answer is %q", got)
	}
	code, err := p.Exec(t.Context(), edge.Containers[0].Name, pods.ExecOptions{Cmd: []string{"/probe", "touch", "/run/chat/x"}})
	if err != nil || code == 0 {
		t.Errorf("a read-only mount could be written: exit code %d, %v", code, err)
	}
	if log := p.run(t, server.Containers[0].Name, "touch", "/data/y"); log != "" {
		t.Error(log)
	}
	if err := p.RemoveVolume(t.Context(), volume); err == nil {
		t.Error("a volume in use was removed")
	}
}

func TestPodOnTheHostsNetwork(t *testing.T) {
	t.Parallel()
	p := use(t)
	port := freePort(t)
	spec := p.spec("serve", "127.0.0.1:"+strconv.Itoa(port))
	spec.Network.Mode = pods.NetworkHost
	p.start(t, spec)
	until(t, "an answer", func() bool { return answer(t, port) != "" })
}

func TestPodsOnABridgeFindEachOtherAndPublishPorts(t *testing.T) {
	t.Parallel()
	p := use(t)
	network := "bareboat-" + unique()
	labels := map[string]string{testLabel: network}
	t.Cleanup(func() {
		if err := p.RemoveNetwork(context.Background(), network); err != nil {
			t.Error(err)
		}
	})
	for range 2 { // the second time changes nothing
		if err := p.EnsureNetwork(t.Context(), network, labels, false); err != nil {
			t.Fatal(err)
		}
	}
	var conflict *pods.ConflictError
	if err := p.EnsureNetwork(t.Context(), network, labels, true); !errors.As(err, &conflict) || conflict.Name != network {
		t.Errorf("an internal network of the same name: %v", err)
	}
	list, err := p.Networks(t.Context(), labels)
	if err != nil || len(list) != 1 || list[0].Name != network || list[0].Internal {
		t.Errorf("networks: %+v, %v", list, err)
	}

	port := freePort(t)
	server := p.spec("serve", ":8080")
	server.Hostname = "web-1"
	server.Network = pods.Network{Mode: pods.NetworkBridge, Names: []string{network}, Alias: []string{"web"}}
	server.Ports = []pods.Port{{HostIP: "127.0.0.1", Host: uint16(port), Container: 8080}}
	p.start(t, server)
	client := p.spec("lines", "0")
	client.Network = pods.Network{Mode: pods.NetworkBridge, Names: []string{network}}
	p.start(t, client)

	until(t, "an answer at the published port", func() bool { return answer(t, port) == "hello from web-1" })
	// Debian 12's name server for networks forgets for a moment when others come and go.
	until(t, "an answer at the alias", func() bool {
		var out bytes.Buffer
		code, err := p.Exec(t.Context(), client.Containers[0].Name, pods.ExecOptions{
			Cmd: []string{"/probe", "get", "web:8080"}, Stdout: &out,
		})
		return err == nil && code == 0 && out.String() == "hello from web-1"
	})
	if err := p.RemoveNetwork(t.Context(), network); err == nil {
		t.Error("a network in use was removed")
	}
}

func TestPortInUseIsSaid(t *testing.T) {
	t.Parallel()
	p := use(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	network := "bareboat-" + unique()
	t.Cleanup(func() {
		if err := p.RemoveNetwork(context.Background(), network); err != nil {
			t.Error(err)
		}
	})
	if err := p.EnsureNetwork(t.Context(), network, nil, true); err != nil {
		t.Fatal(err)
	}
	spec := p.spec("lines", "0")
	spec.Network = pods.Network{Mode: pods.NetworkBridge, Names: []string{network}}
	spec.Ports = []pods.Port{{HostIP: "127.0.0.1", Host: uint16(l.Addr().(*net.TCPAddr).Port), Container: 80}}
	p.create(t, spec)
	err = p.StartPod(t.Context(), spec.Name)
	if err == nil || !strings.Contains(err.Error(), "address already in use") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error is %v", err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func answer(t *testing.T, port int) string {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://127.0.0.1:" + strconv.Itoa(port))
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return string(body)
}
