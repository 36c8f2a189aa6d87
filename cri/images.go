package cri

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/limpet-cri/limpet/cri/pod"
	"github.com/limpet-cri/limpet/image"
)

// imageServer is the ImageService.
type imageServer struct {
	runtime.UnimplementedImageServiceServer
	about   About
	images  *image.Service
	pods    *pod.Manager
	metrics *Metrics
}

func (s *imageServer) ListImages(_ context.Context, r *runtime.ListImagesRequest) (*runtime.ListImagesResponse, error) {
	return &runtime.ListImagesResponse{Images: s.list(r.GetFilter())}, nil
}

func (s *imageServer) StreamImages(r *runtime.StreamImagesRequest, out grpc.ServerStreamingServer[runtime.StreamImagesResponse]) error {
	return inChunks(s.list(r.GetFilter()), func(l []*runtime.Image) error {
		return out.Send(&runtime.StreamImagesResponse{Images: l})
	})
}

func (s *imageServer) list(f *runtime.ImageFilter) []*runtime.Image {
	found := s.images.List(f.GetImage().GetImage())
	out := make([]*runtime.Image, 0, len(found))
	for _, img := range found {
		out = append(out, imageOf(img))
	}
	return out
}

// ImageStatus of an absent image is an answer without an image, never an
// error: the kubelet asks before every pull.
func (s *imageServer) ImageStatus(_ context.Context, r *runtime.ImageStatusRequest) (*runtime.ImageStatusResponse, error) {
	img, found, err := s.images.Status(r.GetImage().GetImage())
	if err != nil {
		return nil, err
	}
	if !found {
		return &runtime.ImageStatusResponse{}, nil
	}
	out := &runtime.ImageStatusResponse{Image: imageOf(img)}
	// The kubelet finds here what it sent itself, to tell apart what pods of
	// other annotations asked for.
	out.Image.Spec = &runtime.ImageSpec{Image: img.ID, Annotations: maps.Clone(r.GetImage().GetAnnotations())}
	if r.GetVerbose() {
		if out.Info, err = verbose("image", img); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *imageServer) PullImage(ctx context.Context, r *runtime.PullImageRequest) (*runtime.PullImageResponse, error) {
	if err := s.about.checkHandler(r.GetImage()); err != nil {
		return nil, err
	}
	started := time.Now()
	img, err := s.images.Pull(ctx, r.GetImage().GetImage(), image.PullOptions{Auth: authOf(r.GetAuth())})
	s.metrics.pulled(time.Since(started), err)
	if err != nil {
		return nil, err
	}
	return &runtime.PullImageResponse{ImageRef: img.ID}, nil
}

func (s *imageServer) RemoveImage(ctx context.Context, r *runtime.RemoveImageRequest) (*runtime.RemoveImageResponse, error) {
	if err := s.about.checkHandler(r.GetImage()); err != nil {
		return nil, err
	}
	if err := s.images.Remove(ctx, r.GetImage().GetImage()); err != nil {
		return nil, err
	}
	return &runtime.RemoveImageResponse{}, nil
}

// ImageFsInfo names one folder for both, since they share a file system:
// images with their compiled code, and what containers wrote on top.
func (s *imageServer) ImageFsInfo(ctx context.Context, _ *runtime.ImageFsInfoRequest) (*runtime.ImageFsInfoResponse, error) {
	u, err := s.images.Usage(ctx)
	if err != nil {
		return nil, err
	}
	bytes, inodes := s.pods.LayerUsage()
	return &runtime.ImageFsInfoResponse{
		ImageFilesystems:     []*runtime.FilesystemUsage{usageOf(u.Mountpoint, u.Bytes, u.Inodes)},
		ContainerFilesystems: []*runtime.FilesystemUsage{usageOf(u.Mountpoint, bytes, inodes)},
	}, nil
}

func usageOf(mountpoint string, bytes, inodes uint64) *runtime.FilesystemUsage {
	return &runtime.FilesystemUsage{
		Timestamp:  time.Now().UnixNano(),
		FsId:       &runtime.FilesystemIdentifier{Mountpoint: mountpoint},
		UsedBytes:  &runtime.UInt64Value{Value: bytes},
		InodesUsed: &runtime.UInt64Value{Value: inodes},
	}
}

func imageOf(img image.Image) *runtime.Image {
	out := &runtime.Image{
		Id:          img.ID,
		RepoTags:    img.RepoTags,
		RepoDigests: img.RepoDigests,
		Size:        img.Size,
		Pinned:      img.Pinned,
		Spec:        &runtime.ImageSpec{Image: img.ID},
	}
	if img.Config.UID >= 0 {
		out.Uid = &runtime.Int64Value{Value: img.Config.UID}
	} else {
		out.Username = img.Config.Username
	}
	return out
}

func authOf(a *runtime.AuthConfig) *image.Auth {
	if a == nil {
		return nil
	}
	return &image.Auth{
		Username: a.GetUsername(), Password: a.GetPassword(), Auth: a.GetAuth(), ServerAddress: a.GetServerAddress(),
		IdentityToken: a.GetIdentityToken(), RegistryToken: a.GetRegistryToken(),
	}
}

// verbose puts a value into the info map of a verbose answer, as JSON.
func verbose(key string, v any) (map[string]string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("verbose info: %w", err)
	}
	return map[string]string{key: string(b)}, nil
}
