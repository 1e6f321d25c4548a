@echo off
rem Sets up this project: environment, dependencies, .env and database. Safe to run again at any time.
rem It finds Python and creates .venv; app/core/setup.py does the rest. setup.sh does so elsewhere.
setlocal
cd /d "%~dp0"
set "VIRTUAL_ENV="
set "PYTHONHOME="
set "PYTHONPATH="
set "VENV_PYTHON=%~dp0.venv\Scripts\python.exe"

rem "not errorlevel 1" means success.
set "UV="
call uv --version >nul 2>nul
if not errorlevel 1 set "UV=yes"

if not exist app\core\setup.py goto no_project

echo [setup] 1/4 Python environment
if not exist "%VENV_PYTHON%" goto make_environment
"%VENV_PYTHON%" -P app\core\setup.py --is-usable
if not errorlevel 1 goto set_up

:make_environment
if defined UV goto make_environment_with_uv
set "PYTHON="
set "TOO_OLD="
call :try py -3
if not defined PYTHON call :try python
if defined PYTHON goto make_environment_with_python
if defined TOO_OLD goto old_python
goto no_python

rem Windows has an alias named python that only opens the Microsoft Store. It fails here.
rem Without "call", a python that is a .bat file would end this script.
:try
call %* --version >nul 2>nul
if errorlevel 1 exit /b 0
set "TOO_OLD=%*"
call %* -c "import sys; sys.exit(sys.version_info < (3, 11))"
if not errorlevel 1 set "PYTHON=%*"
exit /b 0

:make_environment_with_python
call %PYTHON% -m venv --clear .venv
if errorlevel 1 goto no_environment
goto set_up

:make_environment_with_uv
call uv venv --quiet --clear --seed --python ">=3.11" .venv
if errorlevel 1 goto no_environment

rem -P: a file in app\core must not replace a module of the standard library.
:set_up
"%VENV_PYTHON%" -P app\core\setup.py %*
set "CODE=%ERRORLEVEL%"
if "%CODE%" == "0" exit /b 0
goto stop

:no_project
echo [setup] ERROR: setup.bat is not in a project folder.
set "CODE=1"
goto stop

:no_python
echo [setup] ERROR: Python 3.11 or newer was not found. Get it from https://www.python.org/downloads/ and select "Add to PATH".
set "CODE=10"
goto stop

:old_python
echo [setup] ERROR: Python 3.11 or newer is required. This is:
call %TOO_OLD% --version
set "CODE=11"
goto stop

:no_environment
echo [setup] ERROR: could not create .venv
set "CODE=12"
goto stop

rem After a double click, pause: otherwise the window closes with the error.
rem Explorer's command line is the only one that ends like this: cmd /c ""C:\...\setup.bat" "
:stop
setlocal EnableDelayedExpansion
set "STARTED_BY=!CMDCMDLINE!"
if not defined STARTED_BY exit /b %CODE%
set "LAST=!STARTED_BY:~-3!"
if "!LAST:"=x!"=="x x" pause
exit /b %CODE%
