from __future__ import annotations

import dataclasses
from functools import cache

import pytest
import torch
from lookalike_extractor.backbones import Backbone, load_backbone
from lookalike_extractor.descriptor import DescriptorModel, group_recipes, load_descriptor_models
from lookalike_extractor.errors import BackboneUnknown, NodeUnknown, RecipeInvalid
from lookalike_extractor.extraction import create_feature_extractor
from lookalike_extractor.folding import fold_batch_norm
from lookalike_extractor.images import decode
from lookalike_extractor.pooling import join, pool
from lookalike_extractor.preprocessing import Preprocessing
from lookalike_extractor.recipe import RECIPES, Recipe, Tap
from photos import cropped, encode, photo, photo_paths, resized
from torch import Tensor, fx, nn

PIXELS = Preprocessing(32, 32, "squash", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, bias=False)
        self.norm1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 8, 3, bias=False)
        self.norm2 = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x)).relu()
        y: Tensor = self.norm2(self.conv2(x))
        return y.relu()


def tiny() -> Backbone:
    torch.manual_seed(0)
    module = Tiny()
    for norm in (module.norm1, module.norm2):
        nn.init.uniform_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return Backbone("tiny", module.eval(), PIXELS, "digest")


def recipe(name: str, *taps: Tap) -> Recipe:
    return Recipe(name, "tiny", taps or (Tap("relu_1"),))


def noise(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator)


@cache
def real() -> DescriptorModel:
    (model,) = load_descriptor_models(list(RECIPES.values()))
    return model


@cache
def batch() -> Tensor:
    """64 photos, uint8 [64, 3, 224, 224]: those of the package and parts of them."""
    photos = [photo(name) for name in photo_paths()]
    images = (photos + [cropped(p, 0.3) for p in photos] + [cropped(p, 0.5) for p in photos])[:64]
    return torch.stack([pixels(encode(image)) for image in images])


torch.set_num_threads(max(2, torch.get_num_threads()))  # at least two, as the server has them


@cache
def whole() -> dict[str, Tensor]:
    return described(batch())


def pixels(data: bytes) -> Tensor:
    return torch.from_numpy(decode(data, real().preprocessing)).permute(2, 0, 1)


def described(x: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        return real()(x)  # type: ignore[no-any-return]


def test_descriptors_are_what_the_nodes_pooled_and_joined_give() -> None:
    backbone = tiny()
    model = DescriptorModel(backbone, [recipe("both", Tap("relu"), Tap("relu_1", "max")), recipe("one")])
    x = noise(3)
    with torch.inference_mode():
        got = model(x)
        y = (x / 255 - 0.5) / 0.25
        early = backbone.module.norm1(backbone.module.conv1(y)).relu()
        late = backbone.module(y)
    expected = join([pool(early, "gem", 3.0), pool(late, "max", 0)])
    assert torch.allclose(got["both"], expected, atol=1e-5)
    assert torch.allclose(got["one"], join([pool(late, "gem", 3.0)]), atol=1e-5)


def test_spaces_tell_dimension_and_recipe() -> None:
    model = DescriptorModel(tiny(), [recipe("both", Tap("relu"), Tap("relu_1")), recipe("one")])
    assert {name: space.dimension for name, space in model.spaces.items()} == {"both": 12, "one": 8}
    assert model.spaces["one"].recipe == "one"
    assert model.spaces["one"].id != model.spaces["both"].id


def test_a_space_is_that_of_the_weights() -> None:
    one, two = tiny(), dataclasses.replace(tiny(), weights_digest="another")
    spaces = [DescriptorModel(backbone, [recipe("r")]).spaces["r"].id for backbone in (one, one, two)]
    assert spaces[0] == spaces[1] != spaces[2]


def test_the_backbone_is_left_as_it_was() -> None:
    backbone = tiny()
    before = {key: value.clone() for key, value in backbone.module.state_dict().items()}
    DescriptorModel(backbone, [recipe("r")])
    after = backbone.module.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_what_a_recipe_says_of_its_input_goes_before_the_backbone() -> None:
    changed = dataclasses.replace(recipe("r"), input_size=(48, 64), resize="crop")
    model = DescriptorModel(tiny(), [changed])
    assert (model.preprocessing.height, model.preprocessing.width, model.preprocessing.resize) == (
        48,
        64,
        "crop",
    )


@pytest.mark.parametrize(
    ("recipes", "told"),
    [
        ([], "at least one"),
        ([recipe("r"), recipe("r")], "one name"),
        ([recipe("r"), dataclasses.replace(recipe("s"), resize="crop")], "share"),
        ([dataclasses.replace(recipe("r"), backbone="huge")], "share"),
    ],
)
def test_recipes_that_cannot_share_a_pass_are_refused(recipes: list[Recipe], told: str) -> None:
    with pytest.raises(RecipeInvalid, match=told):
        DescriptorModel(tiny(), recipes)


def test_a_node_that_is_not_there_is_refused() -> None:
    with pytest.raises(NodeUnknown, match=r"^recipe 'r': .*relu_7"):
        DescriptorModel(tiny(), [recipe("r", Tap("relu_7"))])


def test_an_unknown_backbone_is_told_with_its_recipe() -> None:
    recipe = Recipe("mine", "resnet5", (Tap("layer4"),), None, None, None, 0.9)
    with pytest.raises(BackboneUnknown, match=r"^recipe 'mine': there is no backbone 'resnet5'"):
        group_recipes([recipe])


def test_an_empty_batch_gives_no_rows() -> None:
    model = DescriptorModel(tiny(), [recipe("r")])
    assert model(noise(2)[:0])["r"].shape == (0, 8)


# Folding


def graph(*nodes: str) -> fx.GraphModule:
    return create_feature_extractor(tiny().module, {n: n for n in nodes})


def norms(module: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in module.modules())


def test_folding_leaves_no_batch_norm_and_the_same_values() -> None:
    extractor = graph("relu", "relu_1")
    folded = fold_batch_norm(extractor)
    x = torch.randn(2, 3, 16, 16)
    assert norms(folded) == 0
    for key, value in extractor(x).items():
        assert torch.allclose(folded(x)[key], value, atol=1e-5)


def test_a_tapped_convolution_is_not_folded() -> None:
    extractor = graph("conv1", "relu_1")
    folded = fold_batch_norm(extractor)
    x = torch.randn(2, 3, 16, 16)
    assert norms(folded) == 1
    assert torch.equal(folded(x)["conv1"], extractor(x)["conv1"])


def test_folding_changes_nothing_of_the_source() -> None:
    extractor = graph("relu_1")
    before = extractor.state_dict()["conv1.weight"].clone()
    fold_batch_norm(extractor)
    assert norms(extractor) == 2
    assert torch.equal(extractor.state_dict()["conv1.weight"], before)


# With the real weights


def test_the_default_descriptors_stay_with_the_unfolded_network() -> None:
    backbone = load_backbone("efficientnet_lite0")
    prep = real().preprocessing
    x = (batch()[:8] / 255 - torch.tensor(prep.mean).view(3, 1, 1)) / torch.tensor(prep.std).view(3, 1, 1)
    with torch.inference_mode():
        network = backbone.module
        features = network.head(network.blocks(network.stem(x)))  # type: ignore[operator]
    assert (described(batch()[:8])["semantic"] - join([pool(features, "rgem", 3.0)])).abs().max() < 1e-5


def test_rows_have_length_one() -> None:
    for rows in described(batch()[:4]).values():
        assert torch.allclose(rows.norm(dim=1), torch.ones(4), atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 17, 33])
def test_a_descriptor_does_not_depend_on_the_size_of_its_batch(size: int) -> None:
    part = described(batch()[:size])
    assert all(torch.equal(rows, whole()[name][:size]) for name, rows in part.items())


def test_a_descriptor_does_not_depend_on_its_neighbours() -> None:
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    among_others = described(batch()[order])
    assert all(torch.equal(rows, whole()[name][order]) for name, rows in among_others.items())


@pytest.mark.parametrize("name", ["coffee", "chelsea", "astronaut", "rocket"])
def test_copies_are_over_the_threshold(name: str) -> None:
    image = photo(name)
    copies = [resized(image, 0.5), cropped(image, 0.05)]
    files = [encode(image, quality=95), encode(image, quality=40), *(encode(copy) for copy in copies)]
    rows = described(torch.stack([pixels(data) for data in files]))["near_duplicate"]
    assert (rows[1:] @ rows[0]).min() >= RECIPES["near_duplicate"].duplicate_threshold


def test_different_photos_are_under_the_threshold() -> None:
    same = {"chessboard_RGB", "motorcycle_right"}
    names = [name for name in photo_paths() if name not in same]
    rows = described(torch.stack([pixels(encode(photo(name))) for name in names]))["near_duplicate"]
    similar = rows @ rows.T - 2 * torch.eye(len(rows))
    assert similar.max() < RECIPES["near_duplicate"].duplicate_threshold
