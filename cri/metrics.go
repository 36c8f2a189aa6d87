package cri

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/cri/pod"
	"github.com/limpet-cri/limpet/image"
)

// Metrics are the counters of the edge. They belong to one Server and are
// exposed through the registry that they were made with.
type Metrics struct {
	calls    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	panics   prometheus.Counter
	pulls    *prometheus.CounterVec
	pullTime prometheus.Histogram
}

// NewMetrics makes the counters and registers them.
func NewMetrics(r prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "limpet_cri_calls_total", Help: "Calls that ended, by method and gRPC code.",
		}, []string{"method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "limpet_cri_call_seconds", Help: "How long calls took, by method.",
			// A pod is created in milliseconds and pulled in minutes.
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 10),
		}, []string{"method"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "limpet_cri_calls_in_flight", Help: "Calls that are being carried out.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "limpet_cri_panics_total", Help: "Calls that ended in a panic: bugs of limpetd.",
		}),
		pulls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "limpet_image_pulls_total", Help: "Pulls that ended, by result.",
		}, []string{"result"}),
		pullTime: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "limpet_image_pull_seconds", Help: "How long pulls that succeeded took, compilation included.",
			Buckets: prometheus.ExponentialBuckets(0.02, 3, 10),
		}),
	}
	for _, c := range []prometheus.Collector{m.calls, m.seconds, m.inFlight, m.panics, m.pulls, m.pullTime} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// begin counts a call in; what it returns counts it out.
func (m *Metrics) begin(method string) func(codes.Code, time.Duration) {
	m.inFlight.Inc()
	return func(code codes.Code, took time.Duration) {
		m.inFlight.Dec()
		m.calls.WithLabelValues(method, code.String()).Inc()
		m.seconds.WithLabelValues(method).Observe(took.Seconds())
	}
}

func (m *Metrics) pulled(took time.Duration, err error) {
	if err != nil {
		m.pulls.WithLabelValues("failed").Inc()
		return
	}
	m.pulls.WithLabelValues("ok").Inc()
	m.pullTime.Observe(took.Seconds())
}

// Inventory tells how many sandboxes, containers and images there are, counted
// when asked.
type Inventory struct {
	pods   *pod.Manager
	images *image.Service

	sandboxes, containers, imageCount, imageBytes *prometheus.Desc
}

// NewInventory returns a collector to be registered.
func NewInventory(pods *pod.Manager, images *image.Service) *Inventory {
	return &Inventory{
		pods: pods, images: images,
		sandboxes:  prometheus.NewDesc("limpet_pod_sandboxes", "Sandboxes, by state.", []string{"state"}, nil),
		containers: prometheus.NewDesc("limpet_containers", "Containers, by state.", []string{"state"}, nil),
		imageCount: prometheus.NewDesc("limpet_images", "Images on the node.", nil, nil),
		imageBytes: prometheus.NewDesc("limpet_image_bytes", "Sum of the sizes of the images on the node, compressed.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (v *Inventory) Describe(c chan<- *prometheus.Desc) {
	c <- v.sandboxes
	c <- v.containers
	c <- v.imageCount
	c <- v.imageBytes
}

// Collect implements prometheus.Collector.
func (v *Inventory) Collect(c chan<- prometheus.Metric) {
	sandboxes := map[string]float64{}
	for _, s := range runtime.PodSandboxState_name {
		sandboxes[s] = 0
	}
	for _, s := range v.pods.ListPodSandbox(nil) {
		sandboxes[s.GetState().String()]++
	}
	containers := map[string]float64{}
	for _, s := range runtime.ContainerState_name {
		containers[s] = 0
	}
	for _, s := range v.pods.ListContainers(nil) {
		containers[s.GetState().String()]++
	}
	gauges(c, v.sandboxes, sandboxes, "SANDBOX_")
	gauges(c, v.containers, containers, "CONTAINER_")
	images, bytes := v.images.List(""), uint64(0)
	for _, i := range images {
		bytes += i.Size
	}
	c <- prometheus.MustNewConstMetric(v.imageCount, prometheus.GaugeValue, float64(len(images)))
	c <- prometheus.MustNewConstMetric(v.imageBytes, prometheus.GaugeValue, float64(bytes))
}

func gauges(c chan<- prometheus.Metric, d *prometheus.Desc, counts map[string]float64, prefix string) {
	for state, n := range counts {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, strings.ToLower(strings.TrimPrefix(state, prefix)))
	}
}
