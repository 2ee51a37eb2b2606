// openb_order writes the arrival order of the published openb benchmark for one seed.
//
//	openb_order NODES.csv PODS.csv SEED > ORDER.txt
//
// The benchmark's simulator is a Go program: its order comes from math/rand, whose stream only Go
// reproduces. The protocol: seed; one draw; pods sorted by name, shuffled; clones drawn until
// demand reaches 1.3 times the capacity (or pods removed while it is above); ten draws by other
// parts of that program; then a permutation of the nodes that breaks ties.
// Output: a comment, "node_rank ..." and "arrivals ...", as the fixtures have them.
package main

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"math/rand"
	"os"
	"sort"
	"strconv"
)

const ratio = 1.3

type pod struct {
	name  string
	milli int64 // per device
	count int64
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "openb_order:", err)
	os.Exit(1)
}

func read(path string) ([][]string, map[string]int) {
	f, err := os.Open(path)
	if err != nil {
		fail(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil || len(rows) < 2 {
		fail(fmt.Errorf("%s: no rows (%v)", path, err))
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	return rows[1:], column
}

func number(row []string, column map[string]int, name string) int64 {
	at, ok := column[name]
	if !ok {
		fail(fmt.Errorf("no column %q", name))
	}
	n, err := strconv.ParseInt(row[at], 10, 64)
	if err != nil {
		fail(err)
	}
	return n
}

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("usage: openb_order NODES.csv PODS.csv SEED"))
	}
	seed, err := strconv.ParseInt(os.Args[3], 10, 64)
	if err != nil {
		fail(err)
	}
	nodes, nodeColumn := read(os.Args[1])
	rows, column := read(os.Args[2])
	var capacity, demand int64
	for _, n := range nodes {
		capacity += 1000 * number(n, nodeColumn, "gpu")
	}
	pods := make([]pod, len(rows))
	for i, r := range rows {
		pods[i] = pod{r[column["name"]], number(r, column, "gpu_milli"), number(r, column, "num_gpu")}
		demand += pods[i].milli * pods[i].count
	}
	sort.Slice(pods, func(i, j int) bool { return pods[i].name < pods[j].name })

	r := rand.New(rand.NewSource(seed))
	r.Int()
	order := make([]int, len(pods))
	for i := range order {
		order[i] = i
	}
	r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	limit := ratio * float64(capacity)
	if float64(demand) > limit {
		for float64(demand) > limit {
			at := r.Intn(len(order))
			p := pods[order[at]]
			order = append(order[:at], order[at+1:]...)
			demand -= p.milli * p.count
		}
	} else if float64(demand) < limit {
		for {
			at := r.Intn(len(pods))
			if float64(demand+pods[at].milli) > limit {
				break
			}
			demand += pods[at].milli * pods[at].count
			order = append(order, at)
		}
	}
	for i := 0; i < 10; i++ {
		r.Int63()
	}
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	fmt.Fprintf(out, "# openb seed %d: rank of node i (nodes sorted by name); arrivals: rows of the pod list sorted by name\n", seed)
	fmt.Fprint(out, "node_rank")
	for _, rank := range r.Perm(len(nodes)) {
		fmt.Fprint(out, " ", rank)
	}
	fmt.Fprint(out, "\narrivals")
	for _, at := range order {
		fmt.Fprint(out, " ", at)
	}
	fmt.Fprintln(out)
}
