#!/bin/sh
# Prints a .env for docker-compose.yml with fresh random secrets: sh deploy/make-env.sh > .env
set -eu
# The shell has made the file for everybody to read, unless its umask is 077.
if [ -f /dev/stdout ]; then chmod 600 /dev/stdout; fi
random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }
cat <<END
# Secrets of docker-compose.yml. Keep this file out of version control and backups that others read.
POSTGRES_PASSWORD=$(random 24)
REDIS_PASSWORD=$(random 24)
S3_ACCESS_KEY=$(random 10)
S3_SECRET_KEY=$(random 20)
API_TOKEN=$(random 24)
LINK_KEY=$(random 32)

# Machines' worth of work at a time: runs of each kind, and workers that take them.
WORKERS=1

# The store of the compose file. For another, leave the profile out and name it here:
# SOURCE_URL=s3://bucket/in  OUTPUT_URL=s3://bucket/out  S3_ENDPOINT=https://s3.eu-central-1.amazonaws.com
COMPOSE_PROFILES=local-store
SENSOR_SECONDS=0.2
END
