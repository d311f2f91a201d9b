"""Configurations of pictures as open_clip and transformers store them beside weights."""

IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPEN_CLIP = {"model_cfg": {"embed_dim": 512, "vision_cfg": {"image_size": 224, "layers": 12, "patch_size": 16}}}
SIGLIP = {"mean": HALF, "std": HALF, "interpolation": "bicubic", "resize_mode": "squash"}
CLIP_PROCESSOR = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "image_mean": CLIP_MEAN,
    "image_std": IMAGENET_STD,
    "resample": 3,
    "size": {"shortest_edge": 224},
    "image_processor_type": "CLIPImageProcessor",
}
DINOV2 = CLIP_PROCESSOR | {"size": {"shortest_edge": 256}, "image_processor_type": "BitImageProcessor"}
VIT = {"size": {"height": 224, "width": 224}, "resample": 2, "image_mean": HALF, "image_std": HALF, "do_resize": True}
OLD = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "do_center_crop": True}
OLD_VIT = {"feature_extractor_type": "ViTFeatureExtractor", "size": 224, "do_resize": True, "resample": 2}
BEIT = {"feature_extractor_type": "BeitFeatureExtractor", "size": 256, "crop_size": 224, "do_center_crop": True}
CONVNEXT = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 224}, "crop_pct": 0.875}
