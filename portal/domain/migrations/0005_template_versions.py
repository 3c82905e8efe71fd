import django.db.models.deletion
from django.db import migrations, models


def keep_what_is_there(apps, schema_editor):
    """The present version of each template, and every version that an environment was made from."""
    template_row, version_row, environment_row = (apps.get_model("domain", name) for name in ("Template", "TemplateVersion", "Environment"))
    for template in template_row.objects.all():
        version_row.objects.create(template=template, version=template.version, spec=template.spec)
    made_from = environment_row.objects.order_by().values_list("template_id", "template_version").distinct()
    for template_id, version in made_from:
        if not version_row.objects.filter(template_id=template_id, version=version).exists():
            latest = environment_row.objects.filter(template_id=template_id, template_version=version).order_by("-created_at").first()
            version_row.objects.create(template_id=template_id, version=version, spec=latest.template_spec)


class Migration(migrations.Migration):
    dependencies = [
        ("domain", "0004_pages_in_order"),
    ]

    operations = [
        migrations.CreateModel(
            name="TemplateVersion",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("version", models.PositiveIntegerField()),
                ("spec", models.JSONField()),
                ("source", models.TextField(blank=True, help_text="The YAML it was read from, comments and all; empty: not known")),
                (
                    "replaced_by",
                    models.PositiveIntegerField(blank=True, help_text="Environments made from this version start with that one the next time", null=True),
                ),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("template", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name="versions", to="domain.template")),
            ],
            options={
                "ordering": ["template", "-version"],
                "constraints": [
                    models.UniqueConstraint(fields=("template", "version"), name="one_spec_per_template_version"),
                    models.CheckConstraint(
                        condition=models.Q(("replaced_by", None), ("replaced_by__gt", models.F("version")), _connector="OR"),
                        name="replaced_by_a_later_version",
                    ),
                ],
            },
        ),
        migrations.RunPython(keep_what_is_there, migrations.RunPython.noop),
    ]
