"""Maps of the sphere show every point where it is."""

from __future__ import annotations

import pytest
import torch

from eai.tasks.dynamics.maps import draw_maps, orthographic, plate_carree
from eai.tasks.dynamics.meshes import icosphere, icosphere_faces


def test_plate_carree_has_longitudes_from_left_to_right_and_latitudes_upwards() -> None:
    points = plate_carree(6).points.view(6, 12, 3)
    longitude = torch.atan2(points[..., 1], points[..., 0]).rad2deg()
    latitude = points[..., 2].arcsin().rad2deg()
    torch.testing.assert_close(longitude[2], torch.arange(-165.0, 180, 30).double())
    torch.testing.assert_close(latitude[:, 7], torch.arange(-75.0, 90, 30).double())


@pytest.mark.parametrize("longitude", [0.0, 180.0])
def test_hemispheres_have_east_on_the_right_and_north_above(longitude: float) -> None:
    picture = orthographic(9, longitude)
    towards = 1.0 if longitude == 0 else -1.0
    torch.testing.assert_close(picture.points.norm(dim=1), torch.ones(len(picture.points), dtype=torch.float64))
    assert (towards * picture.points[:, 0] >= 0).all()
    right = torch.full((9, 9, 3), torch.nan, dtype=torch.float64)
    right[picture.inside] = picture.points
    torch.testing.assert_close(right[4, :, 1], towards * torch.arange(-8.0, 9, 2).double() / 9)
    torch.testing.assert_close(right[:, 4, 2], torch.arange(-8.0, 9, 2).double() / 9)
    assert right[0, 0].isnan().all()


def test_fields_are_drawn_in_rows_on_one_scale() -> None:
    mesh = icosphere(2)
    up, ahead = mesh.positions[:, 2], mesh.positions[:, 0]
    figure = draw_maps({"to the north": up.float(), "to longitude 0": -2 * ahead}, mesh.positions, icosphere_faces(2))
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == 6
    assert {image.get_clim() for image in images} == {(-2 * ahead.abs().max().item(), 2 * ahead.abs().max().item())}
    north, near, _, _, front, behind = (torch.from_numpy(image.get_array().filled(torch.nan)) for image in images)
    latitude = torch.deg2rad(torch.arange(-89.5, 90))
    torch.testing.assert_close(north, latitude.sin().double()[:, None].expand_as(north), rtol=0, atol=0.03)
    assert near[0, 0].isnan()
    middle = len(front) // 2
    assert front[middle, middle].item() == pytest.approx(-2, abs=0.1)
    assert behind[middle, middle].item() == pytest.approx(2, abs=0.1)
    assert [axes.get_title() for axes in figure.axes[::3][:2]] == ["to the north", "to longitude 0"]


def test_fields_of_another_size_are_told() -> None:
    mesh = icosphere(1)
    with pytest.raises(ValueError, match=r"fields: expected at least one, got 0"):
        draw_maps({}, mesh.positions, icosphere_faces(1))
    with pytest.raises(ValueError, match=r"fields\['truth'\]: expected 42 values, got \[41\]"):
        draw_maps({"truth": mesh.positions[1:, 0]}, mesh.positions, icosphere_faces(1))
